package firecrest

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/identity"
	"sallyport/internal/fair"
)

const (
	// unseen is how long a job may take from its submission until every command of
	// the scheduler knows it.
	unseen = time.Minute
	// attemptsKept is how long the outcome of a submission with a key is remembered.
	attemptsKept = 10 * time.Minute
	// maxSubmitted bounds what is remembered of one system, maxOfOne what is of one
	// person, who loses the oldest to the next: the scheduler's commands are the user's,
	// so that nothing limits by itself how many submissions they say there were.
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
	mu   sync.Mutex // guards what follows
	jobs fair.Table[person, submission, scheduler.Job]
	// running has the attempts under way, of which there are no more than requests are in
	// flight; attempts those whose outcome is known.
	running  map[attempt]*outcome
	attempts fair.Table[person, attempt, *outcome]
}

// A submission is a job of a person; two people may be told of one id.
type submission struct {
	person
	id string
}

func newSubmissions() *submissions {
	return &submissions{
		jobs:     fair.Table[person, submission, scheduler.Job]{Most: maxSubmitted, Each: maxOfOne},
		running:  make(map[attempt]*outcome),
		attempts: fair.Table[person, attempt, *outcome]{Most: maxSubmitted, Each: maxOfOne},
	}
}

// An outcome is that of an attempt; done is closed when it is known.
type outcome struct {
	done chan struct{}
	id   string
	err  error
}

// note remembers a job, unless its texts are huge. Of each person the latest are kept.
func (s *submissions) note(p person, j scheduler.Job) {
	if size := len(j.Name) + len(j.Partition) + len(j.WorkingDirectory); size > maxNoted || j.Account != nil && len(*j.Account) > maxNoted {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs.Put(p, submission{p, j.ID}, j, now, now.Add(unseen))
}

// of returns the jobs of a person.
func (s *submissions) of(p person) []scheduler.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var jobs []scheduler.Job
	for _, j := range s.jobs.Of(p, time.Now()) {
		jobs = append(jobs, j)
	}
	return jobs
}

func (s *submissions) find(p person, id string) (scheduler.Job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs.Get(submission{p, id}, time.Now())
}

// once calls submit, unless the attempt was made before: then it returns what
// became of that, and waits for it if need be. What is known not to have led to a
// job may be tried again.
func (s *submissions) once(ctx context.Context, a attempt, submit func() (string, error)) (string, error) {
	if a.key == (attempt{}).key {
		return submit()
	}
	s.mu.Lock()
	known, again := s.running[a]
	if !again {
		known, again = s.attempts.Get(a, time.Now())
	}
	if !again {
		known = &outcome{done: make(chan struct{})}
		s.running[a] = known
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
	delete(s.running, a)
	if now := time.Now(); known.err == nil || mayHaveSubmitted(known.err) {
		s.attempts.Put(a.person, a, known, now, now.Add(attemptsKept))
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
