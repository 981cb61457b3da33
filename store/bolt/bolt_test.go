package bolt

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sallyport/store"
	"sallyport/store/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) })
}

func TestAnySequenceOfCallsAgreesWithAMapWhileTimePasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t)
		// The wrapper hides T.Deadline, which may not be called in a bubble.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			storetest.Model(rt, db, time.Sleep)
			requireConsistent(t, db)
		})
	})
}

func open(t testing.TB) *DB {
	t.Helper()
	db, err := Open(Config{Path: filepath.Join(t.TempDir(), "sallyport.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
