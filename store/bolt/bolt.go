// Package bolt keeps a [store.Store] in one bbolt file.
//
// Guarantee: when Put or Delete returns nil, the change is on the disk. All
// operations that are waiting at one moment share one transaction and one fsync.
// An entry is invisible from the moment it expires and is removed soon after.
//
// Threat: whoever can write the file can rewrite the ledger of certificates. The
// file must therefore belong to this user (or root) with mode 0600 in a folder
// that nobody else can write, or Open refuses it.
//
// Caveat: the file serves one process at a time. It does not shrink: removed
// entries leave free pages that later entries use.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sallyport/internal/private"
	"sallyport/store"
	"sallyport/store/internal/groupcommit"
)

const (
	// maxBatch bounds the operations of one transaction, and with it what the
	// queue can hold: 256 values of at most 1 MiB.
	maxBatch = 256

	defaultPruneInterval = time.Minute
	defaultLockTimeout   = time.Second
)

// ErrLocked says that another process has the file open.
var ErrLocked = errors.New("store is in use by another process")

// Config says where the store is and how it behaves.
type Config struct {
	// Path is the file. It is created with mode 0600 when it does not exist; its
	// folder must exist. Required.
	Path string
	// Logger gets what goes wrong in the background; nil discards it.
	Logger *slog.Logger
	// PruneInterval is the time between two removals of expired entries; 0 means
	// one minute.
	PruneInterval time.Duration
	// LockTimeout is how long Open waits for another process to release the file
	// before it returns ErrLocked; 0 means one second.
	LockTimeout time.Duration
}

// DB is a store in one file. It is safe for concurrent use.
type DB struct {
	db     *bbolt.DB
	writer *groupcommit.Writer[*op]
	log    *slog.Logger

	stop   context.CancelFunc // ends the pruner
	pruner sync.WaitGroup
	close  func() error
}

var _ store.Store = (*DB)(nil)

// Open opens the store, or creates it. It returns an error that wraps ErrLocked
// when another process has it, and refuses a file or folder that others could
// tamper with.
func Open(cfg Config) (*DB, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	file, err := openFile(cfg)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db := &DB{db: file, log: cfg.Logger}
	db.writer = groupcommit.New(maxBatch, db.commit)
	ctx, cancel := context.WithCancel(context.Background())
	db.stop = cancel
	db.pruner.Go(func() { db.prune(ctx, cfg.PruneInterval) })
	db.close = sync.OnceValue(func() error {
		db.stop()
		db.pruner.Wait()
		db.writer.Close()
		return db.db.Close()
	})
	return db, nil
}

// Close waits for the transaction at work and releases the file. Operations that
// are still queued end with [store.ErrClosed].
func (db *DB) Close() error { return db.close() }

func (cfg Config) withDefaults() (Config, error) {
	var errs []error
	if cfg.Path == "" {
		errs = append(errs, errors.New("no path given"))
	}
	if cfg.PruneInterval < 0 {
		errs = append(errs, fmt.Errorf("prune interval %s is negative", cfg.PruneInterval))
	}
	if cfg.LockTimeout < 0 {
		errs = append(errs, fmt.Errorf("lock timeout %s is negative", cfg.LockTimeout))
	}
	if cfg.PruneInterval == 0 {
		cfg.PruneInterval = defaultPruneInterval
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = defaultLockTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, errors.Join(errs...)
}

// openFile returns the bbolt database with our buckets in it.
func openFile(cfg Config) (*bbolt.DB, error) {
	dir := filepath.Dir(cfg.Path)
	if err := private.CheckDir(dir, 0o022); err != nil {
		return nil, err
	}
	options := *bbolt.DefaultOptions
	options.Timeout = cfg.LockTimeout
	options.FreelistType = bbolt.FreelistMapType
	options.OpenFile = func(path string, flag int, _ fs.FileMode) (*os.File, error) {
		return private.OpenFile(path, flag)
	}
	db, err := bbolt.Open(cfg.Path, 0o600, &options)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%q: %w", cfg.Path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Path, err)
	}
	err = db.Update(createBuckets)
	if err == nil {
		err = private.SyncDir(dir) // a new file's name must survive a crash, too
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%q: %w", cfg.Path, err), db.Close())
	}
	return db, nil
}
