package pool

// A list is a FIFO queue whose links live in its elements: an element can leave
// from the middle, and neither coming nor leaving allocates.
type list[T any] struct {
	head, tail *link[T]
	n          int
}

// A link makes its item an element of at most one list at a time.
type link[T any] struct {
	item       T
	prev, next *link[T]
	in         bool
}

// front returns the oldest item, or the zero T of an empty list.
func (l *list[T]) front() T {
	if l.head == nil {
		var zero T
		return zero
	}
	return l.head.item
}

// push appends k unless it is in the list.
func (l *list[T]) push(k *link[T]) {
	if k.in {
		return
	}
	k.in, k.prev = true, l.tail
	if l.tail == nil {
		l.head = k
	} else {
		l.tail.next = k
	}
	l.tail = k
	l.n++
}

// remove takes k out if it is in the list.
func (l *list[T]) remove(k *link[T]) {
	if !k.in {
		return
	}
	if k.prev == nil {
		l.head = k.next
	} else {
		k.prev.next = k.next
	}
	if k.next == nil {
		l.tail = k.prev
	} else {
		k.next.prev = k.prev
	}
	k.in, k.prev, k.next = false, nil, nil
	l.n--
}
