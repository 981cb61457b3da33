package ca

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

// compromised is a ring whose first key was compromised, with a standby in its place;
// node a has followed, node b has not.
func compromised(t *testing.T) (w *world, n *nodes, bad string) {
	t.Helper()
	w, n = newRing(t)
	bad = w.Fingerprint()
	w.must(t, Act{Step: StepStage, Standby: true})
	w.must(t, Act{Step: StepPublish})
	n.pullAll(w.Authority)
	w.must(t, Act{Step: StepCompromise, Key: bad, Actor: Actor{Reason: "seen elsewhere"}})
	n.pull("a:22", w.TrustBundle())
	return w, n, bad
}

func TestACompromisedKeyIsProbedThoughItIsDestroyed(t *testing.T) {
	t.Parallel()
	w, _, bad := compromised(t)
	again, err := New(w.auth) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*Authority{"the same process": w.Authority, "after a restart": again} {
		list, err := a.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := list[0].Keys[bad].Outcome; got != Refused {
			t.Errorf("%s: node a, which has followed: %q, want refused", name, got)
		}
		if got := list[1].Keys[bad].Outcome; got != Accepted {
			t.Errorf("%s: node b, which has not: %q, want accepted", name, got)
		}
	}
}

func TestTheLastCertificateOfACompromisedKeyIsAProbesAndOnRecord(t *testing.T) {
	t.Parallel()
	w, _, bad := compromised(t)
	v, err := w.ring.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v.held[bad] != nil {
		t.Error("the compromised key can still be had")
	}
	signer, err := w.farewellSigner(t.Context(), v, bad)
	if err != nil || signer == nil {
		t.Fatalf("got %v, %v", signer, err)
	}
	cert := signer.PublicKey().(*ssh.Certificate)
	if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != "probe" ||
		cert.CriticalOptions["force-command"] != ProbeCommand || len(cert.Extensions) != 0 {
		t.Errorf("it is for %v with %v and %v", cert.ValidPrincipals, cert.CriticalOptions, cert.Extensions)
	}
	if row, err := w.Lookup(t.Context(), cert.Serial); err != nil || row.CA != bad || row.Profile != profileProbe {
		t.Errorf("the ledger has %+v, %v", row, err)
	}
	if len(w.events(t, audit.CertificateIssued)) != 1 {
		t.Error("the audit log does not have it")
	}
}

func TestAProbeThatCannotBeOpenedIsForgotten(t *testing.T) {
	t.Parallel()
	w, _, bad := compromised(t)
	e, err := w.store.Get(t.Context(), farewellPrefix+bad)
	if err != nil {
		t.Fatal(err)
	}
	e.Value = []byte(`{"certificate":"AAAA","sealed":"AAAA","sealer":"` + w.Fingerprint() + `"}`)
	if _, err := w.store.Put(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		list, err := w.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if answer, ok := list[1].Keys[bad]; ok {
			t.Errorf("got %+v", answer)
		}
	}
	if _, err := w.store.Get(t.Context(), farewellPrefix+bad); err == nil {
		t.Error("the record is still there")
	}
}
