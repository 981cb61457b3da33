package importfirecrest_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/internal/importfirecrest"
)

// whole is a configuration with these three parts.
func whole(authentication, credentials, clusters string) string {
	return "auth: {" + authentication + "}\nssh_credentials: {" + credentials + "}\nclusters: [{name: one, " + clusters + "}]\n"
}

const (
	goodAuth    = "authentication: {public_certs: ['https://idp.example.org/realms/hpc/protocol/openid-connect/certs']}"
	goodKeys    = "keys: {anna: {private_key: 'secret_file:/run/secrets/anna'}}"
	goodCluster = "ssh: {host: one.example.org, port: 22}"
)

// A secret can stand where nobody expects one.
func TestNoSecretComesOutOfUnusualPlaces(t *testing.T) {
	for _, text := range []string{
		whole("authentication: {public_certs: ['https://bob:hunter2@idp.example.org/certs']}", goodKeys, goodCluster),
		whole("authentication: {public_certs: ['hunter2']}", goodKeys, goodCluster),
		whole(goodAuth+", authorization: {url: 'https://bob:hunter2@fga.example.org/check?key=hunter2'}", goodKeys, goodCluster),
		whole(goodAuth, "type: SSHService, url: 'https://bob:hunter2@ca.example.org'", goodCluster),
		whole(goodAuth, goodKeys, goodCluster+", data_operation: {data_transfer: {service_type: s3, private_url: 'http://bob:hunter2@s3.example.org', public_url: 'http://hunter2'}}"),
		whole(goodAuth, goodKeys, goodCluster+", service_account: {secret: *hunter2 }"),
		whole(goodAuth, goodKeys, goodCluster+", service_account: {secret: !hunter2 x}"),
		whole(goodAuth, goodKeys, goodCluster+", service_account: {secret: @hunter2}"),
	} {
		got, err := importfirecrest.Convert([]byte(text), nil)
		if all := fmt.Sprint(got.TOML, notes(got), err); strings.Contains(strings.ReplaceAll(all, `"http://hunter2"`, ""), "hunter2") {
			t.Errorf("%s\ngives it away:\n%s", text, all)
		}
	}
}

// What a configuration cannot have is left out and named, so that the rest is loaded.
func TestWhatOursCannotHaveIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		whole(goodAuth, goodKeys, "ssh: {host: 'a b', port: 22}"):                                                                   "clusters[0].ssh.host: is missing, or no name",
		whole(goodAuth, goodKeys, goodCluster+", file_systems: [{path: home}]"):                                                     "file_systems[0].path: is no absolute path",
		whole(goodAuth, goodKeys, goodCluster+", file_systems: [{path: /a}, {path: /a/}]"):                                          "file_systems[1].path: stands twice",
		whole(goodAuth, goodKeys, goodCluster+", file_systems: [{path: /a, data_type: odd}]"):                                       "data_type: is none of",
		whole(goodAuth, goodKeys, goodCluster+", file_systems: [{path: /a, default_work_dir: perhaps}]"):                            "default_work_dir: is neither",
		whole(goodAuth, "type: SSHStaticKeys, keys: {}", goodCluster):                                                               "names no key that can be used",
		whole(goodAuth, "type: SSHCA", goodCluster):                                                                                 "ssh_credentials.url: is missing",
		whole("authentication: {public_certs: [a, {b: c}]}", goodKeys, goodCluster):                                                 "has a part that is no text",
		whole("authentication: {public_certs: ['https://i.example/x/certs', 'https://i.example/x/certs/']}", goodKeys, goodCluster): "two of them are of the issuer",
		"firecrest:\n  " + strings.ReplaceAll(whole(goodAuth, goodKeys, goodCluster), "\n", "\n  ") + "\nreplicas: 2":               "replicas: has no counterpart: it is of the chart",
		whole(goodAuth, goodKeys, goodCluster) + `"\e[2J\n1: forged": 1`:                                                            "4:  [2J 1: forged: is not known",
	} {
		got, err := importfirecrest.Convert([]byte(text), nil)
		if err != nil || !strings.Contains(notes(got), want) {
			t.Errorf("%s\n%v, want %q in\n%s", text, err, want, notes(got))
		}
	}
}

// Permissions that stand in a merged mapping must not get lost: nothing would be asked
// of anybody any more.
func TestMergedKeysCount(t *testing.T) {
	text := "defaults: &d\n  authorization: {url: 'https://fga.example.org/check'}\n" +
		"auth:\n  <<: *d\n  " + goodAuth + "\nssh_credentials: {" + goodKeys + "}\n" +
		"clusters:\n- &one {name: one, ssh: {host: one.example.org, port: 2222}, file_systems: [{path: /a, default_work_dir: yes}]}\n" +
		"- {<<: [*one], name: two}\n"
	got, err := importfirecrest.Convert([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.TOML, `effect = "deny"`) || strings.Count(got.TOML, "one.example.org:2222\"]") != 2 ||
		strings.Count(got.TOML, "default_work_dir = true") != 2 || !strings.Contains(got.TOML, `name = "two"`) {
		t.Error(got.TOML)
	}
}

// Aliases and long keys make no large answer of a small file.
func TestAFileStaysSmallInMemory(t *testing.T) {
	var keys strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&keys, "k%d: 1, ", i)
	}
	for name, text := range map[string]string{
		"clusters": "auth: {}\nc: &c {name: a, ssh: {" + keys.String() + "}}\nclusters: [" + strings.Repeat("*c, ", 5000) + "]",
		"long key": "auth: {}\nclusters: []\nssh_credentials: {keys: {" + strings.Repeat("x", 300_000) + ": {" + keys.String() + "}}}",
	} {
		if _, err := importfirecrest.Convert([]byte(text), nil); err == nil || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
