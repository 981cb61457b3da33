package firecrest

// typeLetters are those of ls(1) for the types of files (inode(7)).
var typeLetters = map[uint32]string{
	0o010000: "p", 0o020000: "c", 0o040000: "d", 0o060000: "b", 0o100000: "-", 0o120000: "l", 0o140000: "s",
}

// modeText is type and permissions as ls(1) writes them.
func modeText(mode uint32) (kind, permissions string) {
	kind = typeLetters[mode&0o170000]
	if kind == "" {
		kind = "?"
	}
	text := []byte("rwxrwxrwx")
	for i := range text {
		if mode&(0o400>>i) == 0 {
			text[i] = '-'
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		with byte // if the bit for execution is set; else in upper case
	}{{0o4000, 2, 's'}, {0o2000, 5, 's'}, {0o1000, 8, 't'}} {
		if mode&special.bit == 0 {
			continue
		}
		if text[special.at] == 'x' {
			text[special.at] = special.with
		} else {
			text[special.at] = special.with - 'a' + 'A'
		}
	}
	return kind, string(text)
}
