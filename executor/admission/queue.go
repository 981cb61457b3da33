package admission

import "container/list"

// A queue has the waiting requests of each user in order, and serves the users in
// turn.
type queue[K comparable] struct {
	n     int
	users map[K]*line[K]
	turns *list.List // of *line[K]: who is next
}

// A line is the requests of one user.
type line[K comparable] struct {
	user  K
	wait  *list.List // of *waiter[K]
	place *list.Element
}

// A waiter is one request.
type waiter[K comparable] struct {
	line  *line[K]
	place *list.Element
	ready chan struct{} // closed when granted
	most  int           // requests that may share a turn with it, itself included

	// Guarded by Gate.mu.
	among int   // tickets that were out when it was granted, its own included; 0: not yet
	turn  *turn // that it was granted in
}

// A turn is what a ticket counts for: one request, or several small ones of one user.
// Guarded by Gate.mu.
type turn struct {
	shared int // requests whose tickets are out
	size   int // requests that were granted in it
}

func (w *waiter[K]) grant(t *turn, among int) {
	w.turn, w.among = t, among
	t.shared++
	t.size++
	close(w.ready)
}

func newQueue[K comparable]() queue[K] {
	return queue[K]{users: make(map[K]*line[K]), turns: list.New()}
}

// of is how many requests of a user wait.
func (q *queue[K]) of(user K) int {
	if l := q.users[user]; l != nil {
		return l.wait.Len()
	}
	return 0
}

// ahead is how many requests are served before the next one of a user.
func (q *queue[K]) ahead(user K) int {
	own, ahead := q.of(user), 0
	for u, l := range q.users {
		if u == user {
			ahead += own
			continue
		}
		ahead += min(l.wait.Len(), own+1)
	}
	return ahead
}

// push adds a request, last of its user. A user who had none comes last.
func (q *queue[K]) push(user K) *waiter[K] {
	l := q.users[user]
	if l == nil {
		l = &line[K]{user: user, wait: list.New()}
		l.place = q.turns.PushBack(l)
		q.users[user] = l
	}
	w := &waiter[K]{line: l, ready: make(chan struct{})}
	w.place = l.wait.PushBack(w)
	q.n++
	return w
}

// pop takes the next request; nil if there is none.
func (q *queue[K]) pop() *waiter[K] {
	front := q.turns.Front()
	if front == nil {
		return nil
	}
	l := front.Value.(*line[K])
	w := l.wait.Front().Value.(*waiter[K])
	q.turns.MoveToBack(front)
	q.remove(w)
	return w
}

// popAfter takes the next request of a line that pop has just served, if it may share
// that turn.
func (q *queue[K]) popAfter(l *line[K]) *waiter[K] {
	front := l.wait.Front()
	if front == nil {
		return nil
	}
	w := front.Value.(*waiter[K])
	if w.most <= 1 {
		return nil
	}
	q.remove(w)
	return w
}

// remove takes w out, which is in.
func (q *queue[K]) remove(w *waiter[K]) {
	w.line.wait.Remove(w.place)
	q.n--
	if w.line.wait.Len() == 0 {
		q.turns.Remove(w.line.place)
		delete(q.users, w.line.user)
	}
}
