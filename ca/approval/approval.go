// Package approval holds an administrator's act back until a second person has agreed.
//
// One person asks for the act and so proposes it; another approves it within a time; then
// the same act, asked for again, is done, once. A proposal is named by what it would do,
// so an approval is good for just that: another key, another exception, or a key ring
// that somebody changed meanwhile make another act.
//
// The guarantee: an act that is held is not done before two different persons stand in the
// store for it, and both are in the audit log. The threat is one administrator, mistaken or
// bribed, with a way to the admin socket. The caveat: root of the machine can change the
// configuration, and the files, past it; a change of what is held is in the audit log.
package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/store"
	"sallyport/store/audit"
)

// The acts that can be held.
const (
	Activate   = "activate"   // sign with another CA key
	Retire     = "retire"     // take a CA key out of the bundle, or destroy it
	Rollback   = "rollback"   // sign with the retiring CA key again
	Compromise = "compromise" // end a CA key for good
	Except     = "except"     // a step of a CA key without proof about some nodes
	Lift       = "lift"       // end a revocation
	Restore    = "restore"    // serve from a data folder that came from a backup
)

// Acts are all acts that can be held.
func Acts() []string { return []string{Activate, Retire, Rollback, Compromise, Except, Lift, Restore} }

var (
	// ErrHeld is wrapped by every [*HeldError].
	ErrHeld = errors.New("this takes two people")
	// ErrUnknown says that no such proposal stands: there was none, its time is over, or
	// its act was done.
	ErrUnknown = errors.New("there is no such proposal")
	// ErrSamePerson says that who proposed an act cannot approve it.
	ErrSamePerson = errors.New("who proposed an act cannot approve it")
	// ErrDecided says that somebody else decided about a proposal, or its act was done,
	// at the same time.
	ErrDecided = errors.New("somebody else was quicker")
	// ErrFull says that too many proposals stand.
	ErrFull = errors.New("too many proposals stand")
)

const (
	prefix = "approval/"
	// maxStanding bounds the proposals at a time: an administrator reads each of them.
	maxStanding = 64
	// DefaultWithin is how long a proposal waits for its approval, and then for its act.
	DefaultWithin = 15 * time.Minute
)

// A Person is who proposes or approves: an account of this machine, by the admin socket,
// or somebody whose token has the administrators' role.
type Person struct {
	// UID is the account's number, as the kernel says; it counts only without a subject.
	UID int `json:"uid"`
	// Issuer and Subject are the token's.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Login is for people to read.
	Login string `json:"login,omitempty"`
}

// same says whether the two cannot be told apart.
func (p Person) same(o Person) bool {
	if p.Subject != "" || o.Subject != "" {
		return p.Issuer == o.Issuer && p.Subject == o.Subject
	}
	return p.UID == o.UID
}

func (p Person) String() string {
	if p.Subject != "" {
		return p.Login + " (" + p.Subject + " of " + p.Issuer + ")"
	}
	return "uid " + strconv.Itoa(p.UID)
}

// A Proposal is an act that waits.
type Proposal struct {
	// ID names the act, by the first 16 hex digits of Digest, which follows from it.
	ID     string `json:"id"`
	Digest string `json:"digest"`
	// Act has its names of [Acts], Text what it would do, for people.
	Act  string `json:"act"`
	Text string `json:"text"`
	// Reason is the proposer's.
	Reason string `json:"reason,omitempty"`
	// ProposedBy, ApprovedBy and both times; ApprovedBy is nil while it waits.
	ProposedBy Person    `json:"proposed_by"`
	ProposedAt time.Time `json:"proposed_at"`
	ApprovedBy *Person   `json:"approved_by,omitempty"`
	ApprovedAt time.Time `json:"approved_at,omitzero"`
	// Until is when it is forgotten.
	Until time.Time `json:"until"`
}

// A HeldError says that an act waits for a second person. Nothing was done.
type HeldError struct{ Proposal Proposal }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%v: %s proposed it as %s, which waits until %s; another administrator runs 'sallyport approve %[3]s', then repeat the command",
		ErrHeld, e.Proposal.ProposedBy, e.Proposal.ID, e.Proposal.Until.Format(time.RFC3339))
}

// Unwrap returns ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// A Request asks for an act.
type Request struct {
	// Acts are those that it is; it is held if one of them is.
	Acts []string
	// Text says what it does, for people, and Key what makes it this act and no other.
	Text, Key string
	Reason    string
	By        Person
}

// Config is what a Gate is made of.
type Config struct {
	Store store.Store    // keeps proposals under "approval/"
	Audit audit.Recorder // records each step
	// Acts are held; empty holds none.
	Acts []string
	// Within is how long a proposal stands; 0 means DefaultWithin.
	Within time.Duration
	// Refused says that somebody's access was revoked since they approved; nil: nobody's.
	Refused func(Person) bool
}

// A Gate lets acts through, or holds them. It is safe for concurrent use, also by several
// processes on one store.
type Gate struct {
	store   store.Store
	audit   audit.Recorder
	acts    []string
	within  time.Duration
	refused func(Person) bool
}

// New checks cfg.
func New(cfg Config) (*Gate, error) {
	for _, act := range cfg.Acts {
		if !slices.Contains(Acts(), act) {
			return nil, fmt.Errorf("approval: %q is no act that can be held; there are %s", act, strings.Join(Acts(), ", "))
		}
	}
	if cfg.Within < 0 {
		return nil, fmt.Errorf("approval: %s is negative", cfg.Within)
	}
	g := &Gate{store: cfg.Store, audit: cfg.Audit, acts: cfg.Acts, within: cfg.Within, refused: cfg.Refused}
	if g.within == 0 {
		g.within = DefaultWithin
	}
	return g, nil
}

// Pass returns nil if the act may be done now: it is not held, or another person has
// approved it, which is used up by that. Else the error is a [*HeldError], and the act is
// proposed, if it was not before.
func (g *Gate) Pass(ctx context.Context, r Request) error {
	if !g.holds(r) {
		return nil
	}
	digest := r.digest()
	id := digest[:idDigits]
	p, entry, err := g.get(ctx, id)
	switch {
	case errors.Is(err, ErrUnknown):
		return g.propose(ctx, digest, r)
	case err != nil:
		return err
	case p.Digest != digest: // somebody looked for an act with the name of another
		return fmt.Errorf("%w: another act stands under %s", ErrUnknown, id)
	case p.ApprovedBy == nil:
		return &HeldError{p}
	}
	if g.refused != nil && g.refused(*p.ApprovedBy) {
		return g.disown(ctx, p, entry)
	}
	// The record first: an approval that is used up and not on record would be lost.
	if err := g.record(ctx, "use", p, r.By); err != nil {
		return err
	}
	return g.drop(ctx, entry)
}

// disown takes back the approval of somebody who may approve nothing any more: the act
// waits again.
func (g *Gate) disown(ctx context.Context, p Proposal, entry store.Entry) error {
	by := *p.ApprovedBy
	p.ApprovedBy, p.ApprovedAt = nil, time.Time{}
	if err := g.record(ctx, "disown", p, by); err != nil {
		return err
	}
	if err := g.put(ctx, p, entry.Revision); err != nil {
		return err
	}
	return &HeldError{p}
}

// drop removes a proposal, unless somebody changed it meanwhile.
func (g *Gate) drop(ctx context.Context, entry store.Entry) error {
	if err := g.store.Delete(ctx, entry); err != nil {
		return fmt.Errorf("proposal under %q: %w", entry.Key, decided(err))
	}
	return nil
}

func decided(err error) error {
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return errors.Join(ErrDecided, err)
	}
	return err
}

// holds says whether one of the acts that r is takes two people.
func (g *Gate) holds(r Request) bool {
	return slices.ContainsFunc(r.Acts, func(a string) bool { return slices.Contains(g.acts, a) })
}

func (g *Gate) propose(ctx context.Context, digest string, r Request) error {
	standing, err := g.List(ctx)
	if err != nil {
		return err
	}
	if len(standing) >= maxStanding {
		return fmt.Errorf("%w: %d; see 'sallyport approve'", ErrFull, len(standing))
	}
	now := time.Now().UTC().Truncate(time.Second)
	p := Proposal{
		ID: digest[:idDigits], Digest: digest, Act: strings.Join(r.Acts, ", "), Text: r.Text, Reason: r.Reason,
		ProposedBy: r.By, ProposedAt: now, Until: now.Add(g.within),
	}
	if err := g.record(ctx, "propose", p, r.By); err != nil {
		return err
	}
	if err := g.put(ctx, p, 0); err != nil {
		return err
	}
	return &HeldError{p}
}

// Approve is a second person's consent. It holds until the proposal's end.
func (g *Gate) Approve(ctx context.Context, by Person, id string) (Proposal, error) {
	p, entry, err := g.get(ctx, id)
	if err != nil {
		return Proposal{}, err
	}
	if p.ProposedBy.same(by) {
		return Proposal{}, ErrSamePerson
	}
	if p.ApprovedBy != nil && !p.ApprovedBy.same(by) {
		return Proposal{}, ErrDecided
	}
	p.ApprovedBy, p.ApprovedAt = &by, time.Now().UTC().Truncate(time.Second)
	if err := g.record(ctx, "approve", p, by); err != nil {
		return Proposal{}, err
	}
	return p, g.put(ctx, p, entry.Revision)
}

// Reject forgets a proposal, also one that was approved. Anybody may, its proposer too.
func (g *Gate) Reject(ctx context.Context, by Person, id string) (Proposal, error) {
	p, entry, err := g.get(ctx, id)
	if err != nil {
		return Proposal{}, err
	}
	if err := g.record(ctx, "reject", p, by); err != nil {
		return Proposal{}, err
	}
	return p, g.drop(ctx, entry)
}

// List are the proposals that stand, the oldest first.
func (g *Gate) List(ctx context.Context) ([]Proposal, error) {
	list := []Proposal{}
	for e, err := range g.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("proposals: %w", err)
		}
		p, err := decode(e)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Proposal) int { return a.ProposedAt.Compare(b.ProposedAt) })
	return list, nil
}

func (g *Gate) get(ctx context.Context, id string) (Proposal, store.Entry, error) {
	if !validID(id) {
		return Proposal{}, store.Entry{}, ErrUnknown
	}
	e, err := g.store.Get(ctx, prefix+id)
	if errors.Is(err, store.ErrNotFound) {
		return Proposal{}, e, ErrUnknown
	}
	if err != nil {
		return Proposal{}, e, fmt.Errorf("proposal %s: %w", id, err)
	}
	p, err := decode(e)
	return p, e, err
}

func (g *Gate) put(ctx context.Context, p Proposal, revision uint64) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode proposal: %w", err)
	}
	if _, err := g.store.Put(ctx, store.Entry{Key: prefix + p.ID, Value: text, Revision: revision, Expires: p.Until}); err != nil {
		return fmt.Errorf("proposal %s: %w", p.ID, decided(err))
	}
	return nil
}

func decode(e store.Entry) (Proposal, error) {
	var p Proposal
	if err := json.Unmarshal(e.Value, &p); err != nil {
		return p, fmt.Errorf("proposal under %q is damaged: %w", e.Key, err)
	}
	return p, nil
}

// record is durable before the step that it is about.
func (g *Gate) record(ctx context.Context, step string, p Proposal, by Person) error {
	detail := map[string]string{
		"act": "approval." + step, "proposal": p.ID, "of": p.Act, "text": p.Text, "by": by.String(), "proposed_by": p.ProposedBy.String(),
	}
	if by.Subject == "" {
		detail["uid"] = strconv.Itoa(by.UID)
	}
	if p.ApprovedBy != nil {
		detail["approved_by"] = p.ApprovedBy.String()
	}
	if p.Reason != "" {
		detail["act_reason"] = p.Reason
	}
	return g.audit.Record(ctx, audit.Event{Action: audit.AdminAct, Outcome: audit.Success, Detail: detail})
}
