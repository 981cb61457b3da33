package importfirecrest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What a file may grow to when its aliases are followed, and how long a key may be: keys
// are repeated in the names of what stands below them.
const (
	maxNodes     = 100_000
	maxTextBytes = 4 * MaxBytes
	maxKeyBytes  = 128
)

// parse reads a file of one document.
func parse(text []byte) (*yaml.Node, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("it has more than %d bytes", MaxBytes)
	}
	var document, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		return nil, syntaxError(err)
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is no mapping")
	}
	if err := dec.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d: a second document begins", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(err)
	}
	return document.Content[0], new(inspection).node(document.Content[0])
}

// anchorName is a word of the file in an error: a secret that begins with a star and was
// not quoted is an alias for the parser.
var anchorName = regexp.MustCompile(`(?s)unknown anchor '.*' referenced`)

func syntaxError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = anchorName.ReplaceAllLiteralString(text, "an alias has no anchor (a text that begins with * must be quoted)")
	return errors.New(oneLine(text))
}

// An inspection walks through a file as its reader will, aliases included.
type inspection struct{ nodes, bytes int }

func (i *inspection) node(n *yaml.Node) error {
	i.nodes++
	i.bytes += len(n.Value)
	switch {
	case i.nodes > maxNodes || i.bytes > maxTextBytes:
		return fmt.Errorf("line %d: with its aliases followed it is too large", n.Line)
	case strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		// Not named: a secret that begins with an exclamation mark is a tag, too.
		return fmt.Errorf("line %d: tags such as !include are not read, and FirecREST reads none: put the text in its place", n.Line)
	case n.Kind == yaml.AliasNode:
		return i.node(n.Alias)
	case n.Kind == yaml.MappingNode:
		if err := keys(n); err != nil {
			return err
		}
	}
	for _, each := range n.Content {
		if err := i.node(each); err != nil {
			return err
		}
	}
	return nil
}

// keys refuses a mapping in which one of two equal keys would be lost.
func keys(n *yaml.Node) error {
	lines := map[string]int{}
	for j := 0; j+1 < len(n.Content); j += 2 {
		key := n.Content[j]
		name := snake(key.Value)
		if key.Kind != yaml.ScalarNode || len(name) > maxKeyBytes {
			return fmt.Errorf("line %d: a key is no text of at most %d bytes", key.Line, maxKeyBytes)
		}
		if first, ok := lines[name]; ok {
			return fmt.Errorf("line %d: a key stands twice, first in line %d", key.Line, first)
		}
		lines[name] = key.Line
	}
	return nil
}
