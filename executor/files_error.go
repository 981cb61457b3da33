package executor

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"sallyport/executor/sftp"
)

// What can be wrong with a file. A [*FileError] wraps one of them.
var (
	// ErrNotFound says that there is no such file, or a directory on the way is
	// none. HTTP: 404.
	ErrNotFound = errors.New("no such file or directory")
	// ErrPermission says that the node does not allow it. HTTP: 403.
	ErrPermission = errors.New("permission denied")
	// ErrExists says that there is something of that name. HTTP: 409.
	ErrExists = errors.New("file exists")
	// ErrIsDirectory says that a directory stands where a file is needed. HTTP: 400.
	ErrIsDirectory = errors.New("is a directory")
	// ErrNotDirectory says that there is something else than a directory. HTTP: 400.
	ErrNotDirectory = errors.New("not a directory")
	// ErrNotRegular says that a device, pipe or socket is not read. HTTP: 400.
	ErrNotRegular = errors.New("not a regular file")
	// ErrNotEmpty says that a directory has entries. HTTP: 409.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrNoSpace says that the file system or the quota is full. HTTP: 507.
	ErrNoSpace = errors.New("no space left")
	// ErrUnsupported says that the node cannot do it. HTTP: 501.
	ErrUnsupported = errors.New("not supported by the node")
	// ErrFileLimit says that a listing or an upload is larger than allowed. HTTP: 413.
	ErrFileLimit = errors.New("larger than allowed")
	// ErrInvalidPath says that no file can have this name. HTTP: 400.
	ErrInvalidPath = errors.New("path is not acceptable")
	// ErrOutside says that the path leads out of the folders that operations are kept within,
	// or led elsewhere when it was looked at again. HTTP: 403.
	ErrOutside = errors.New("leads out of the folders that are served")
	// ErrFileFailed says that the node refused for a reason that it did not tell.
	// HTTP: 500.
	ErrFileFailed = errors.New("refused by the node")
)

// errNoSFTP says that the node, or the caller's account there, has no SFTP.
var errNoSFTP = errors.New("no SFTP")

// A FileError is why an operation on a file failed.
type FileError struct {
	Op, Path string
	// Err is one of the sentinels of this package.
	Err error
	// Detail is more about it, or empty.
	Detail string
}

func (e *FileError) Error() string {
	text := e.Op + " " + strconv.Quote(e.Path) + ": " + e.Err.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e *FileError) Unwrap() error { return e.Err }

// A yielded error is one of the caller's own: it is handed back as it is.
type yielded struct{ error }

func (e yielded) Unwrap() error { return e.error }

func yieldError(err error) error {
	if err == nil {
		return nil
	}
	return yielded{err}
}

// fileError turns an error of a backend into one for the caller. A change that the
// node may have made is ErrOutcomeUnknown.
func (f *Files) fileError(ctx context.Context, op, path string, change bool, err error) error {
	if own, ok := errors.AsType[yielded](err); ok {
		return own.error
	}
	if told, ok := errors.AsType[*FileError](err); ok {
		return &FileError{Op: op, Path: path, Err: told.Err, Detail: told.Detail}
	}
	for _, ours := range []error{ErrClosed, ErrRevoked} {
		if errors.Is(err, ours) {
			return ours
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sftp.ErrClosed), errors.Is(err, sftp.ErrFrozen), errors.Is(err, sftp.ErrProtocol):
		if change {
			return fmt.Errorf("%w: %s: %w", ErrOutcomeUnknown, f.Node(), err)
		}
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, f.Node(), err)
	case !change && errors.Is(err, ErrOutcomeUnknown):
		return fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // nothing was changed, so nothing is unknown
	}
	return err
}
