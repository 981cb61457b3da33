package bolt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"sallyport/store"
)

func TestConcurrentWritesShareTransactions(t *testing.T) {
	t.Parallel()
	db := open(t)
	before := transactions(t, db)
	const n = 400
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { mustPut(t, db, store.Entry{Key: fmt.Sprintf("k%d", i)}) })
	}
	wg.Wait()
	if used := transactions(t, db) - before; used > n/4 {
		t.Errorf("%d concurrent writes took %d transactions", n, used)
	}
	requireConsistent(t, db)
}

// What conflicts or finds nothing costs no transaction.
func TestARefusedWriteLeavesTheFileAlone(t *testing.T) {
	t.Parallel()
	db := open(t)
	e := mustPut(t, db, store.Entry{Key: "k"})
	before := transactions(t, db)
	if _, err := db.Put(t.Context(), store.Entry{Key: "k"}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put = %v, want ErrConflict", err)
	}
	if err := db.Delete(t.Context(), store.Entry{Key: "k", Revision: e.Revision + 1}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Delete = %v, want ErrConflict", err)
	}
	if err := db.Delete(t.Context(), store.Entry{Key: "other", Revision: 1}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delete = %v, want ErrNotFound", err)
	}
	if after := transactions(t, db); after != before {
		t.Errorf("refused writes took %d transactions", after-before)
	}
}

func TestOperationsOfOneBatchSeeEachOther(t *testing.T) {
	t.Parallel()
	db := open(t)
	batch := []*op{
		{apply: put, entry: store.Entry{Key: "k", Value: []byte("first")}},
		{apply: put, entry: store.Entry{Key: "k", Value: []byte("second")}},
		{apply: remove, entry: store.Entry{Key: "other", Revision: 1}},
		{apply: put, entry: store.Entry{Key: "other"}},
	}
	db.commit(batch)
	for i, want := range []error{nil, store.ErrConflict, store.ErrNotFound, nil} {
		if !errors.Is(batch[i].err, want) {
			t.Errorf("operation %d = %v, want %v", i, batch[i].err, want)
		}
	}
	if e, err := db.Get(t.Context(), "k"); err != nil || string(e.Value) != "first" {
		t.Errorf("Get = %q, %v", e.Value, err)
	}
}

func TestAFailedTransactionFailsEveryOperationOfIt(t *testing.T) {
	t.Parallel()
	db := open(t)
	broken := errors.New("disk on fire")
	batch := []*op{
		{apply: put, entry: store.Entry{Key: "k"}},
		{apply: put, entry: store.Entry{Key: "k"}}, // a conflict, were it not for the failure
		{apply: func(*bbolt.Tx, *op) error { return broken }},
	}
	db.commit(batch)
	for i, o := range batch {
		if !errors.Is(o.err, broken) {
			t.Errorf("operation %d = %v, want the failure", i, o.err)
		}
	}
	if _, err := db.Get(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get after the failure = %v, want ErrNotFound", err)
	}
}

// A record that is not ours to read fails the calls that meet it, and no others.
func TestADamagedRecordIsAnErrorOfItsOwnKey(t *testing.T) {
	t.Parallel()
	db := open(t)
	mustPut(t, db, store.Entry{Key: "a"})
	mustPut(t, db, store.Entry{Key: "c"})
	err := db.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(entriesBucket)).Put([]byte("b"), []byte("short"))
	})
	if err != nil {
		t.Fatal(err)
	}
	batch := []*op{
		{apply: put, entry: store.Entry{Key: "b"}},
		{apply: remove, entry: store.Entry{Key: "b", Revision: 1}},
		{apply: put, entry: store.Entry{Key: "d"}},
	}
	db.commit(batch)
	_, getErr := db.Get(t.Context(), "b")
	var seen []string
	var listErr error
	for e, err := range db.List(t.Context(), "") {
		seen, listErr = append(seen, e.Key), err
	}
	for call, err := range map[string]error{"Put": batch[0].err, "Delete": batch[1].err, "Get": getErr, "List": listErr} {
		if err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), `key "b" has 5 bytes`) {
			t.Errorf("%s = %v, want an error that names the record", call, err)
		}
	}
	if len(seen) != 2 || seen[0] != "a" || batch[2].err != nil {
		t.Errorf("List yielded %q; Put of another key = %v", seen, batch[2].err)
	}
}

func TestAWriterCanLeaveWhileItIsQueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t)
		begun := make(chan struct{})
		var slow sync.WaitGroup
		slow.Go(func() {
			err := db.do(t.Context(), &op{apply: func(*bbolt.Tx, *op) error {
				close(begun)
				time.Sleep(time.Second) // a slow disk
				return nil
			}})
			if err != nil {
				t.Error(err)
			}
		})
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := db.Put(ctx, store.Entry{Key: "k"}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Millisecond {
			t.Errorf("a queued Put ended after %s with %v, want its deadline", time.Since(start), err)
		}
		slow.Wait()
		if _, err := db.Get(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of what was withdrawn = %v, want ErrNotFound", err)
		}
	})
}

// transactions counts what was written to the file.
func transactions(t *testing.T, db *DB) (id int) {
	t.Helper()
	err := db.db.View(func(tx *bbolt.Tx) error {
		id = tx.ID()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustPut(t testing.TB, db *DB, e store.Entry) store.Entry {
	t.Helper()
	got, err := db.Put(context.Background(), e)
	if err != nil {
		t.Errorf("Put(%q): %v", e.Key, err)
	}
	return got
}
