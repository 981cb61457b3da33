package bolt

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"sallyport/store"
)

func TestExpiredEntriesAreHiddenAtOnceAndRemovedOnSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t)
		mustPut(t, db, store.Entry{Key: "stays"})
		mustPut(t, db, store.Entry{Key: "later", Expires: time.Now().Add(time.Hour)})
		for i := range 3*pruneBatch + 1 { // several transactions' worth
			if i%100 != 0 {
				continue
			}
			var wg sync.WaitGroup
			for j := i; j < min(i+100, 3*pruneBatch+1); j++ {
				wg.Go(func() {
					mustPut(t, db, store.Entry{Key: fmt.Sprintf("lease/%05d", j), Expires: time.Now().Add(30 * time.Second)})
				})
			}
			wg.Wait()
		}
		time.Sleep(30*time.Second - time.Millisecond)
		if n := listed(t, db); n != 3*pruneBatch+3 {
			t.Errorf("just before they expire %d entries are listed", n)
		}
		time.Sleep(time.Millisecond)
		if n := listed(t, db); n != 2 {
			t.Errorf("in the moment they expire %d entries are listed, want 2", n)
		}
		if n := stored(t, db); n != 3*pruneBatch+3 {
			t.Errorf("before the schedule %d entries are stored, want all", n)
		}
		time.Sleep(defaultPruneInterval - 30*time.Second)
		synctest.Wait()
		if n := stored(t, db); n != 2 {
			t.Errorf("after the schedule %d entries are stored, want 2", n)
		}
		requireConsistent(t, db)
	})
}

func TestAnEntryWhoseExpiryMovedIsNotRemovedAtTheOldTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t)
		soon := time.Now().Add(10 * time.Second)
		prolonged := mustPut(t, db, store.Entry{Key: "prolonged", Expires: soon})
		mustPut(t, db, store.Entry{Key: "prolonged", Expires: soon.Add(time.Hour), Revision: prolonged.Revision})
		kept := mustPut(t, db, store.Entry{Key: "kept", Expires: soon})
		mustPut(t, db, store.Entry{Key: "kept", Revision: kept.Revision})
		again := mustPut(t, db, store.Entry{Key: "again", Expires: soon})
		if err := db.Delete(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		mustPut(t, db, store.Entry{Key: "again"})
		mustPut(t, db, store.Entry{Key: "replaced", Expires: soon})
		time.Sleep(20 * time.Second) // expired, not yet removed
		mustPut(t, db, store.Entry{Key: "replaced"})
		time.Sleep(2 * defaultPruneInterval)
		synctest.Wait()
		if n := listed(t, db); n != 4 {
			t.Errorf("%d entries are listed, want 4", n)
		}
		requireConsistent(t, db)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := stored(t, db); n != 3 {
			t.Errorf("after an hour %d entries are stored, want 3", n)
		}
		requireConsistent(t, db)
	})
}

// Writers must not wait for a whole backlog to be removed.
func TestABacklogIsRemovedInBoundedTransactions(t *testing.T) {
	t.Parallel()
	db := open(t)
	err := db.db.Update(func(tx *bbolt.Tx) error {
		for i := range pruneBatch + 7 {
			o := &op{entry: store.Entry{Key: fmt.Sprintf("k%d", i), Expires: time.Unix(1, 0)}}
			if err := put(tx, o); err != nil || o.err != nil {
				return fmt.Errorf("put: %w, %w", err, o.err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		left int
		more bool
	}{{7, true}, {0, false}, {0, false}} {
		o := &op{apply: pruneExpired}
		if err := db.do(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if n := stored(t, db); n != want.left || o.more != want.more {
			t.Errorf("after one transaction %d entries are left, more %t; want %d, %t", n, o.more, want.left, want.more)
		}
	}
}

func listed(t *testing.T, db *DB) (n int) {
	t.Helper()
	for _, err := range db.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func stored(t *testing.T, db *DB) (n int) {
	t.Helper()
	err := db.view(func(entries *bbolt.Bucket) error {
		n = entries.Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
