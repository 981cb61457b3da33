package firecrest

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/identity/identitytest"
)

// TestCancelledOffersAreAtTheirOwnersExpense: one person offers and cancels as many
// streams as there are places for, and others offer and are told of theirs as before.
func TestCancelledOffersAreAtTheirOwnersExpense(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		alice, mallory := identitytest.Identity(t, "alice", time.Hour), identitytest.Identity(t, "mallory", time.Hour)
		all, on := noStreams(), &system{}
		offer := func(id string, of *fileStream) (*fileStream, error) {
			of.id, of.system, of.secret, of.until = streamPrefix+id, on, "secret of "+id, time.Now().Add(time.Minute)
			return of, all.offer(of, time.Now())
		}
		before, err := offer("before", &fileStream{caller: alice})
		if err != nil {
			t.Fatal(err)
		}
		all.stop(before)
		for i := range 3 * maxStreamEnds {
			s, err := offer(strconv.Itoa(i), &fileStream{caller: mallory})
			if err != nil {
				t.Fatalf("offer %d: %v", i, err)
			}
			all.stop(s)
		}
		if all.ends.Len() > maxStreamEndsOfOne+1 || len(all.open)+len(all.keys)+len(all.each) > 0 {
			t.Errorf("%d ends are kept, and %d streams are open", all.ends.Len(), len(all.open))
		}
		if all.find(personOf(alice), on, before.id) != before {
			t.Error("the end of alice's stream is forgotten for mallory's")
		}
		if _, err := offer("now", &fileStream{caller: alice}); err != nil {
			t.Errorf("alice cannot offer a stream: %v", err)
		}
		if all.awaited("secret of now", "", time.Now()) == nil || all.awaited("secret of 7", "", time.Now()) != nil {
			t.Error("the stream that waits is not found by its secret, or one that does not is")
		}
	})
}

// TestOffersThatNobodyTookMakeRoom: a person has 16 at a time, and lapsed ones do not count.
func TestOffersThatNobodyTookMakeRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		alice, all := identitytest.Identity(t, "alice", time.Hour), noStreams()
		offers := func(n int) (taken int) {
			for i := range n {
				err := all.offer(&fileStream{id: strconv.FormatInt(time.Now().UnixNano(), 10) + strconv.Itoa(i), caller: alice, secret: strconv.Itoa(i), until: time.Now().Add(time.Minute)}, time.Now())
				if err == nil {
					taken++
				} else if !errors.Is(err, errManyStreams) {
					t.Fatal(err)
				}
			}
			return taken
		}
		if n := offers(20); n != maxOpenStreamsOfOne {
			t.Errorf("%d at a time", n)
		}
		time.Sleep(time.Minute)
		if n := offers(20); n != maxOpenStreamsOfOne {
			t.Errorf("%d after those before are over", n)
		}
	})
}
