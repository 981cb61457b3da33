package ca

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/ca/krl"
	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
)

// memoryStore is a store.Store without a disk.
type memoryStore struct {
	mu      sync.Mutex // guards the fields below
	entries map[string]store.Entry
	last    uint64
}

func (m *memoryStore) Get(_ context.Context, key string) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return store.Entry{}, store.ErrNotFound
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (m *memoryStore) Put(_ context.Context, e store.Entry) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[e.Key].Revision != e.Revision {
		return store.Entry{}, store.ErrConflict
	}
	m.last++
	e.Revision, e.Value = m.last, bytes.Clone(e.Value)
	m.entries[e.Key] = e
	return e, nil
}

func (m *memoryStore) Delete(_ context.Context, e store.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, e.Key)
	return nil
}

func (m *memoryStore) List(_ context.Context, prefix string) iter.Seq2[store.Entry, error] {
	m.mu.Lock()
	keys := slices.Sorted(maps.Keys(m.entries))
	m.mu.Unlock()
	return func(yield func(store.Entry, error) bool) {
		for _, key := range keys {
			m.mu.Lock()
			e, ok := m.entries[key]
			m.mu.Unlock()
			if ok && strings.HasPrefix(key, prefix) && !yield(e, nil) {
				return
			}
		}
	}
}

func (*memoryStore) Close() error { return nil }

// memoryKeys is a KeyStore without a disk.
type memoryKeys struct {
	mu   sync.Mutex // guards keys
	keys map[string]*Key
}

func (m *memoryKeys) Create(name string) (*Key, error) {
	text, _, err := GenerateKey("", nil)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[name] = key
	return key, err
}

func (m *memoryKeys) Load(name string) (*Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := m.keys[name]; key != nil {
		return key, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memoryKeys) Destroy(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, name)
	return nil
}

type memoryAudit struct {
	mu     sync.Mutex // guards events
	events []audit.Event
}

func (m *memoryAudit) Record(_ context.Context, e audit.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
	return nil
}

// nodes are login nodes that each have some bundle.
type nodes struct {
	mu      sync.Mutex // guards what follows
	bundles map[string][]byte
	revoked map[string]*krl.List // by node; none: it checks no list
	asked   int
	roots   map[string]bool        // nodes that let root in
	saw     func(*ssh.Certificate) // if set, called for each login
}

func (n *nodes) Nodes() (list []Node) {
	for _, address := range slices.Sorted(maps.Keys(n.bundles)) {
		list = append(list, Node{System: "hpc", Address: address})
	}
	return list
}

func (n *nodes) trusts(address string, key ssh.PublicKey) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Contains(n.bundles[address], bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}

func (n *nodes) pull(address string, bundle []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bundles[address] = bundle
}

func (n *nodes) Probe(_ context.Context, node Node, login ProbeLogin) ProbeAnswer {
	cert := login.Signer.PublicKey().(*ssh.Certificate)
	n.mu.Lock()
	n.asked++
	if n.saw != nil {
		n.saw(cert)
	}
	refused := login.User == "root" && !n.roots[node.Address]
	n.mu.Unlock()
	if refused {
		return ProbeAnswer{Outcome: Refused, Detail: "PermitRootLogin no"}
	}
	checker := ssh.CertChecker{
		IsUserAuthority:          func(key ssh.PublicKey) bool { return n.trusts(node.Address, key) },
		SupportedCriticalOptions: []string{"force-command"},
	}
	if _, err := checker.Authenticate(probeConn(login.User), cert); err != nil {
		return ProbeAnswer{Outcome: Refused, Detail: err.Error()}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if list, ok := n.revoked[node.Address]; ok && list.Revokes(cert) {
		return ProbeAnswer{Outcome: Refused, Detail: "revoked"}
	}
	return ProbeAnswer{Outcome: Accepted}
}

// probeConn is the connection of a user, for a CertChecker.
type probeConn string

func (c probeConn) User() string        { return string(c) }
func (probeConn) SessionID() []byte     { return nil }
func (probeConn) ClientVersion() []byte { return nil }
func (probeConn) ServerVersion() []byte { return nil }
func (probeConn) RemoteAddr() net.Addr  { return &net.TCPAddr{} }
func (probeConn) LocalAddr() net.Addr   { return &net.TCPAddr{} }

// A model is two administrators on one ring, its nodes, and all that was issued.
type model struct {
	admins    [2]*Authority
	keys      *memoryKeys
	nodes     *nodes
	issued    []*ssh.Certificate
	ended     map[string]KeyState
	serials   map[uint64]bool
	emergency bool // a key was compromised, so outages are possible
}

func newModel(t interface{ Fatal(args ...any) }) *model {
	m := &model{
		keys:    &memoryKeys{keys: make(map[string]*Key)},
		nodes:   &nodes{bundles: map[string][]byte{"a:22": nil, "b:22": nil, "c:22": nil}},
		ended:   make(map[string]KeyState),
		serials: make(map[uint64]bool),
	}
	db := &memoryStore{entries: make(map[string]store.Entry)}
	initial, err := (&memoryKeys{keys: make(map[string]*Key)}).Create("")
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.admins {
		a, err := New(Config{
			Key: initial, Keys: m.keys, Store: db, Audit: &memoryAudit{},
			Profiles: []ProfileConfig{{Name: "user", DefaultTTL: time.Minute}},
			Rotation: RotationConfig{Prober: m.nodes, ProbeUser: "probe", PullInterval: time.Second, MaxSkew: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		m.admins[i] = a
	}
	for _, n := range m.nodes.Nodes() {
		m.nodes.pull(n.Address, m.admins[0].TrustBundle())
	}
	return m
}

func (m *model) ring(t *rapid.T) ring {
	v, err := m.admins[0].ring.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v.ring
}

// act does a random step of a random administrator, perhaps on old knowledge.
func (m *model) act(t *rapid.T) {
	before := m.ring(t)
	act := Act{Step: rapid.SampledFrom([]string{
		StepStage, StepPublish, StepActivate, StepActivate, StepRetire, StepRetire, StepAbandon, StepRollback, StepCompromise,
	}).Draw(t, "step"), Actor: Actor{Reason: "because"}}
	if act.Step == StepCompromise && rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
		return
	}
	act.Standby = act.Step == StepStage && rapid.Bool().Draw(t, "standby")
	if rapid.Bool().Draw(t, "named") {
		act.Key = rapid.SampledFrom(before.Keys).Draw(t, "key").fingerprint()
	}
	if act.Step == StepStage {
		act.Key = ""
	}
	stale := rapid.IntRange(0, 3).Draw(t, "stale") == 0 && before.Generation > 1
	act.Generation = before.Generation
	if stale {
		act.Generation--
	}
	_, err := m.admins[rapid.IntRange(0, 1).Draw(t, "admin")].Act(t.Context(), act)
	after := m.ring(t)
	switch {
	case err == nil && (stale || after.Generation != before.Generation+1):
		t.Fatalf("%+v: generation %d after %d, stale %t", act, after.Generation, before.Generation, stale)
	case err != nil && (!errors.Is(err, ErrStep) || after.Generation != before.Generation):
		t.Fatalf("%+v: %v, generation %d after %d", act, err, after.Generation, before.Generation)
	case err == nil && act.Step == StepCompromise:
		m.emergency = true
	}
}

// goOn tries the step that a rotation would take now.
func (m *model) goOn(t *rapid.T) {
	s, err := m.admins[1].RingStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	act := Act{Step: s.Next.Step, Key: s.Next.Key}
	if act.Step == "" {
		act.Step = StepStage
	}
	if _, err := m.admins[1].Act(t.Context(), act); (err == nil) != (s.Next.Ready || s.Next.Step == "") {
		t.Fatalf("next step %+v: %v", s.Next, err)
	}
}

func (m *model) issue(t *rapid.T, caller Request) {
	a := m.admins[rapid.IntRange(0, 1).Draw(t, "admin")]
	cert, err := a.Issue(t.Context(), caller)
	if err != nil {
		if m.ring(t).in(KeyActive) >= 0 {
			t.Fatal(err)
		}
		return
	}
	if m.serials[cert.Serial] {
		t.Fatalf("serial %d is used twice", cert.Serial)
	}
	m.serials[cert.Serial] = true
	m.issued = append(m.issued, cert)
	if !bytes.HasPrefix(m.ring(t).bundle(), bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert.SignatureKey))) {
		t.Fatal("a key signs that is not the first of the bundle")
	}
}

// check holds after every step.
func (m *model) check(t *rapid.T) {
	r := m.ring(t)
	if err := r.check(); err != nil {
		t.Fatal(err)
	}
	active := 0
	for _, k := range r.Keys {
		fp := k.fingerprint()
		if k.State == KeyActive {
			active++
		}
		if was, ok := m.ended[fp]; ok && k.State != was && k.State != KeyCompromised {
			t.Fatalf("key %s is %s after %s", fp, k.State, was)
		}
		if k.State.ended() {
			m.ended[fp] = k.State
			if _, err := m.keys.Load(k.Name); k.Name != "" && err == nil {
				t.Fatalf("the private key of %s, which is %s, is still there", fp, k.State)
			}
		}
	}
	if active != 1 && !m.emergency {
		t.Fatalf("%d keys are active", active)
	}
	if m.emergency {
		return
	}
	for _, cert := range m.issued {
		if unixTime(cert.ValidBefore).Before(time.Now()) {
			continue
		}
		for _, n := range m.nodes.Nodes() {
			if !m.nodes.trusts(n.Address, cert.SignatureKey) {
				t.Fatalf("node %s refuses certificate %d, which is valid", n.Address, cert.Serial)
			}
		}
	}
}

func TestNoOrderOfStepsLocksAnyoneOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		caller := Request{Caller: identitytest.Identity(t, "alice", 1000*time.Hour), Profile: "user", PublicKey: newPublicKey(t)}
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) { // rapid asks a *testing.T for its deadline, which a bubble forbids
			m := newModel(t)
			t.Repeat(map[string]func(*rapid.T){
				"":      m.check,
				"act":   m.act,
				"issue": func(t *rapid.T) { m.issue(t, caller) },
				// Without these, few orders would come far.
				"next":         m.goOn,
				"next again":   m.goOn,
				"next further": m.goOn,
				"pull": func(t *rapid.T) {
					n := rapid.SampledFrom(m.nodes.Nodes()).Draw(t, "node")
					m.nodes.pull(n.Address, m.ring(t).bundle())
				},
				"pull all": func(t *rapid.T) {
					for _, n := range m.nodes.Nodes() {
						m.nodes.pull(n.Address, m.ring(t).bundle())
					}
				},
				"probe": func(t *rapid.T) {
					if _, err := m.admins[0].Probe(t.Context()); err != nil {
						t.Fatal(err)
					}
				},
				"wait": func(*rapid.T) { time.Sleep(30 * time.Second) },
			})
		})
	})
}

func TestOfTwoAdministratorsAtOnceOneWins(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	for round := range 20 {
		var wg sync.WaitGroup
		won := make([]bool, 8)
		step := []string{StepStage, StepAbandon}[round%2]
		for i := range won {
			wg.Go(func() {
				_, err := m.admins[i%2].Act(t.Context(), Act{Step: step})
				won[i] = err == nil
				if err != nil && !errors.Is(err, ErrStep) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(slices.DeleteFunc(won, func(w bool) bool { return !w })); n != 1 {
			t.Errorf("round %d: %d of 8 won", round, n)
		}
		v, err := m.admins[0].ring.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Generation != uint64(round)+2 {
			t.Errorf("round %d: generation %d", round, v.Generation)
		}
		if held := len(m.keys.keys); held != (round+1)%2 {
			t.Errorf("round %d: %d private keys; those made for nothing must be destroyed", round, held)
		}
	}
}
