package audit

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test binary serves as the child process that is killed or runs out of
// space, when these are set.
const (
	childRole = "SALLYPORT_AUDIT_TEST_ROLE"
	childDir  = "SALLYPORT_AUDIT_TEST_DIR"
)

func TestMain(m *testing.M) {
	var err error
	switch dir := os.Getenv(childDir); os.Getenv(childRole) {
	case "":
		goleak.VerifyTestMain(m)
	case "record":
		err = recordForever(dir)
	case "full-disk":
		err = fillDisk(dir)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// bare is the context of children, which have no test.
func bare() context.Context { return context.Background() }
