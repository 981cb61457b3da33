package revocation

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Index is all acts at one moment. It does not change, and what it is asked costs
// the same however many there are.
type Index struct {
	acts     []Act // the oldest first
	accounts map[string]Act
	people   map[person]Act
	subjects map[string]Act // of any issuer, for uses of an issuer that is not on record
	keys     map[string]Act
	serials  map[string]Act
	keyIDs   map[string]Act
	before   time.Time // the latest of all
	latest   Act       // whose time that is
}

// A person is the URL of an issuer and a subject of its tokens.
type person struct{ issuer, subject string }

// NewIndex takes over the list of acts.
func NewIndex(acts []Act) *Index {
	slices.SortFunc(acts, func(a, b Act) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.id(), b.id())) })
	x := &Index{
		acts: acts, accounts: make(map[string]Act), people: make(map[person]Act), subjects: make(map[string]Act),
		keys: make(map[string]Act), serials: make(map[string]Act), keyIDs: make(map[string]Act),
	}
	for _, a := range acts {
		switch a.Kind {
		case User:
			x.accounts[strings.ToLower(a.Value)] = a
		case Subject:
			issuer, subject, _ := strings.Cut(a.Value, "#")
			x.people[person{issuer, subject}], x.subjects[subject] = a, a
		case Key:
			x.keys[a.Value] = a
		case Serial:
			x.serials[a.Value] = a
		case KeyID:
			x.keyIDs[a.Value] = a
		case IssuedBefore:
			if t, err := time.Parse(time.RFC3339, a.Value); err == nil && t.After(x.before) {
				x.before, x.latest = t, a
			}
		}
	}
	return x
}

// Acts are all, the oldest first, those included that have expired. The list is shared.
func (x *Index) Acts() []Act { return x.acts }

// Standing are those that have not expired.
func (x *Index) Standing(now time.Time) []Act {
	return slices.DeleteFunc(slices.Clone(x.acts), func(a Act) bool { return !a.Expires.IsZero() && !now.Before(a.Expires) })
}

// Of is the act of this kind and value as it stands, or a itself.
func (x *Index) Of(a Act) Act {
	if i := slices.IndexFunc(x.acts, func(o Act) bool { return o.Kind == a.Kind && o.Value == a.Value }); i >= 0 {
		return x.acts[i]
	}
	return a
}

// Covers finds an act that covers a use, as [Act.Covers] says: a person's first, then an
// account's, a key's and a certificate's.
func (x *Index) Covers(u Use) (Act, bool) {
	if len(x.acts) == 0 {
		return Act{}, false
	}
	if a, ok := x.ofPerson(u); ok {
		return a, true
	}
	for _, name := range u.Accounts {
		if a, ok := x.accounts[strings.ToLower(name)]; ok {
			return a, true
		}
	}
	for _, key := range u.Keys {
		if a, ok := x.keys[key]; ok {
			return a, true
		}
	}
	for _, g := range u.Grants {
		if a, ok := x.ofGrant(g); ok {
			return a, true
		}
	}
	return Act{}, false
}

func (x *Index) ofPerson(u Use) (Act, bool) {
	switch {
	case u.Subject == "":
		return Act{}, false
	case u.Issuer == "":
		a, ok := x.subjects[u.Subject]
		return a, ok
	}
	a, ok := x.people[person{u.Issuer, u.Subject}]
	return a, ok
}

func (x *Index) ofGrant(g Grant) (Act, bool) {
	for _, name := range g.Principals {
		if a, ok := x.accounts[strings.ToLower(name)]; ok {
			return a, true
		}
	}
	if a, ok := x.keys[g.Key]; ok {
		return a, true
	}
	if a, ok := x.serials[strconv.FormatUint(g.Serial, 10)]; ok {
		return a, true
	}
	if a, ok := x.keyIDs[g.KeyID]; ok {
		return a, true
	}
	return x.latest, g.Issued.Before(x.before)
}
