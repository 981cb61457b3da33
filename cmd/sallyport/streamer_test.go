package main

import (
	"strings"
	"testing"
)

func TestStreamsAreConfiguredWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	const listen = "\n[firecrest]\nenabled = true\n[firecrest.streamer]\nlisten = \"0.0.0.0:5665\"\n"
	for settings, want := range map[string]string{
		"":                         "firecrest.streamer.public_hosts: ",
		"public_hosts = [\"a\"]\n": "firecrest.streamer.url: ",
		"public_hosts = [\"a\"]\nurl = \"http://sallyport.example.org\"\n":            "must begin with https://",
		"public_hosts = [\"a\"]\nurl = \"https://sallyport.example.org/api\"\n":       "must have no path",
		"public_hosts = [\"a\"]\nurl = \"https://sallyport.example.org/?x=1\"\n":      "must have no path",
		"public_hosts = [\"a\"]\nurl = \"https://a\"\nwait_timeout = \"1s\"\n":        "firecrest.streamer.wait_timeout: ",
		"public_hosts = [\"a\"]\nurl = \"https://sallyport.example.org\"\nport = 1\n": "unknown key",
	} {
		_, err := loadConfig(writeConfig(t, goodConfig+listen+settings), noEnv)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", settings, err, want)
		}
	}
	f, err := loadConfig(writeConfig(t, goodConfig+listen+"public_hosts = [\"a\"]\nurl = \"https://sallyport.example.org/\"\n"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if s := streaming(f.FirecREST.Streamer); s.Port != 5665 || s.URL != "wss://sallyport.example.org" {
		t.Errorf("got %+v", s)
	}
	f, err = loadConfig(writeConfig(t, goodConfig), noEnv)
	if err != nil || streaming(f.FirecREST.Streamer) != nil {
		t.Errorf("without the section there are streams, or %v", err)
	}
}
