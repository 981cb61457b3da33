package firecrest

import (
	"errors"
	"fmt"
	"net/http"

	"sallyport/executor"
)

// A complaint is why an operation on a file failed, as FirecREST says it.
type complaint struct {
	err    error
	status int
	code   string
	// text is that of the C library, by which clients know what happened.
	text string
}

// complaints are FirecREST's answers to what the executor says about files. What
// FirecREST has as a 500 although the request is at fault is a 400 here.
var complaints = []complaint{
	{executor.ErrNotFound, http.StatusNotFound, "file_unknown", "No such file or directory"},
	{executor.ErrOutside, http.StatusForbidden, "path_outside", "Permission denied: the path leads out of the file systems of the requested system"},
	{executor.ErrPermission, http.StatusForbidden, "file_denied", "Permission denied"},
	{executor.ErrExists, http.StatusBadRequest, "file_exists", "File exists"},
	{executor.ErrIsDirectory, http.StatusBadRequest, "is_directory", "Is a directory"},
	{executor.ErrNotDirectory, http.StatusBadRequest, "not_directory", "Not a directory"},
	{executor.ErrNotRegular, http.StatusBadRequest, "not_regular", "Not a regular file"},
	{executor.ErrNotEmpty, http.StatusBadRequest, "not_empty", "Directory not empty"},
	{executor.ErrInvalidPath, http.StatusBadRequest, "path_invalid", "Invalid argument"},
	{executor.ErrNoSpace, http.StatusInsufficientStorage, "no_space", "No space left on device"},
	{executor.ErrUnsupported, http.StatusNotImplemented, "not_supported", "Operation not supported"},
	{executor.ErrFileFailed, http.StatusInternalServerError, "file_failed", "Operation failed"},
}

// fileFailure says what became of an operation on a file in the words of the program
// that FirecREST runs for it, such as "stat: cannot statx". Other errors stay.
func fileFailure(program, name string, err error) error {
	if _, ok := errors.AsType[*executor.FileError](err); !ok {
		return err
	}
	if errors.Is(err, executor.ErrFileLimit) {
		return errOutputTooLarge
	}
	for _, c := range complaints {
		if errors.Is(err, c.err) {
			return c.failure(1, fmt.Sprintf("%s '%s': %s", program, name, c.text))
		}
	}
	return err
}

func (c complaint) failure(exit int, stderr string) *failure {
	return &failure{status: c.status, code: c.code, message: fmt.Sprintf("Remote process failed with exit status:%d and error message:%s", exit, stderr)}
}
