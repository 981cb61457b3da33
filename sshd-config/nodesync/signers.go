package nodesync

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// SignersLine is the line of a node's SignersFile that lets a distribution key sign manifests and nothing else.
func SignersLine(key ssh.PublicKey) string {
	return fmt.Sprintf("%s namespaces=%q %s", Principal, Namespace, ssh.MarshalAuthorizedKey(key))
}

// ParseSigners reads a SignersFile: lines as SignersLine writes them, comments and empty lines. Of the ALLOWED SIGNERS form of
// ssh-keygen(1) only that is taken, so that this and ssh-keygen never read different things in one file. More than one key may
// stand there while the distribution key is replaced.
func ParseSigners(text []byte) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(line))
		if line == "" || line[0] == '#' {
			continue
		}
		key, ok := signerKey(line)
		if !ok {
			return nil, fmt.Errorf("line %d is not: %s namespaces=%q KEYTYPE KEY", number, Principal, Namespace)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("it names no key")
	}
	return keys, nil
}

func signerKey(line string) (ssh.PublicKey, bool) {
	rest, ok := strings.CutPrefix(line, fmt.Sprintf("%s namespaces=%q ", Principal, Namespace))
	if !ok {
		return nil, false
	}
	key, _, options, more, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(options) > 0 || len(more) > 0 {
		return nil, false
	}
	_, isCert := key.(*ssh.Certificate)
	return key, !isCert && key.Type() == strings.Fields(rest)[0]
}
