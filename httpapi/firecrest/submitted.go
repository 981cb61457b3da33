package firecrest

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/identity"
)

const (
	// unseen is how long a job may take from its submission until every command of
	// the scheduler knows it.
	unseen = time.Minute
	// attemptsKept is how long the outcome of a submission with a key is remembered.
	attemptsKept = 10 * time.Minute
	// maxSubmitted bounds what is remembered of one system, maxOfOne what is of one
	// person: the scheduler's commands are the user's, so that nothing limits by itself
	// how many submissions they say there were.
	maxSubmitted, maxOfOne = 10_000, 1000
	// maxNoted bounds the texts of a job that is remembered, in bytes.
	maxNoted = 4 << 10
)

// A person is a caller: two people who share a login are two.
type person struct{ issuer, subject string }

func personOf(i identity.Identity) person { return person{i.Issuer(), i.Subject()} }

func (c *call) person() person { return personOf(c.caller) }

// An attempt is a submission that its client named, so as to be able to repeat it.
type attempt struct {
	person
	key [sha256.Size]byte // zero if there is none
}

// attempt is that of the call. Its key is the header Idempotency-Key, which
// FirecREST does not have.
func (c *call) attempt() attempt {
	a := attempt{person: c.person()}
	if key := c.r.Header.Get("Idempotency-Key"); key != "" {
		a.key = sha256.Sum256([]byte(key))
	}
	return a
}

// submissions remembers what was submitted to a system a moment ago.
type submissions struct {
	mu       sync.Mutex // guards what follows
	jobs     []submittedJob
	attempts map[attempt]*outcome
}

type submittedJob struct {
	person
	scheduler.Job
	until time.Time
}

// An outcome is that of an attempt; done is closed when it is known.
type outcome struct {
	done  chan struct{}
	id    string
	err   error
	until time.Time // set when it is known
}

// note remembers a job, unless its texts are huge. Of each person the latest are kept.
func (s *submissions) note(p person, j scheduler.Job) {
	if size := len(j.Name) + len(j.Partition) + len(j.WorkingDirectory); size > maxNoted || j.Account != nil && len(*j.Account) > maxNoted {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := func(k submittedJob) bool { return k.person == p }; s.count(own) >= maxOfOne {
		oldest := slices.IndexFunc(s.jobs, own)
		s.jobs = slices.Delete(s.jobs, oldest, oldest+1)
	}
	over := 0 // the oldest come first
	for over < len(s.jobs) && (!now.Before(s.jobs[over].until) || len(s.jobs)-over >= maxSubmitted) {
		over++
	}
	s.jobs = append(s.jobs[over:], submittedJob{p, j, now.Add(unseen)})
}

func (s *submissions) count(which func(submittedJob) bool) (n int) {
	for _, j := range s.jobs {
		if which(j) {
			n++
		}
	}
	return n
}

// of returns the jobs of a person.
func (s *submissions) of(p person) []scheduler.Job {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var jobs []scheduler.Job
	for _, j := range s.jobs {
		if j.person == p && now.Before(j.until) {
			jobs = append(jobs, j.Job)
		}
	}
	return jobs
}

func (s *submissions) find(p person, id string) (scheduler.Job, bool) {
	for _, j := range s.of(p) {
		if j.ID == id {
			return j, true
		}
	}
	return scheduler.Job{}, false
}

// once calls submit, unless the attempt was made before: then it returns what
// became of that, and waits for it if need be. What is known not to have led to a
// job may be tried again.
func (s *submissions) once(ctx context.Context, a attempt, submit func() (string, error)) (string, error) {
	if a.key == (attempt{}).key {
		return submit()
	}
	s.mu.Lock()
	s.forget(time.Now(), a.person)
	known, again := s.attempts[a]
	if !again {
		known = &outcome{done: make(chan struct{})}
		s.attempts[a] = known
	}
	s.mu.Unlock()
	if again {
		select {
		case <-known.done:
			return known.id, known.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	known.err = executor.ErrOutcomeUnknown // for those who wait, should submit panic
	defer s.settle(a, known)
	known.id, known.err = submit()
	return known.id, known.err
}

// settle tells those who wait for an outcome.
func (s *submissions) settle(a attempt, known *outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known.until = time.Now().Add(attemptsKept)
	if known.err != nil && !mayHaveSubmitted(known.err) {
		delete(s.attempts, a)
	}
	close(known.done)
}

// mayHaveSubmitted is false if there surely is no job.
func mayHaveSubmitted(err error) bool {
	if _, refused := errors.AsType[*scheduler.Error](err); refused {
		return false
	}
	return errors.Is(err, executor.ErrOutcomeUnknown) || errors.Is(err, errTimedOut)
}

// forget makes room for one more attempt of a person, first at his own expense.
func (s *submissions) forget(now time.Time, p person) {
	if s.attempts == nil {
		s.attempts = make(map[attempt]*outcome)
	}
	own := 0
	for a := range s.attempts {
		if a.person == p {
			own++
		}
	}
	for a, o := range s.attempts {
		switch {
		case o.until.IsZero(): // it is under way
		case a.person == p && own >= maxOfOne:
			own--
			delete(s.attempts, a)
		case !now.Before(o.until), len(s.attempts) > maxSubmitted:
			delete(s.attempts, a)
		}
	}
}
