package audit

import (
	"fmt"
	"os"
	"syscall"
)

// openRegular opens a file to read it. What is no file is refused: a pipe in its place would
// have whoever verifies the log wait without end (open(2): O_NONBLOCK does not).
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return f, nil
	}
	_ = f.Close() // it was only looked at
	if err == nil {
		err = fmt.Errorf("%q is no regular file", path)
	}
	return nil, err
}
