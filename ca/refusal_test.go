package ca

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

func TestARefusalProbeTellsARefusingNodeFromOneThatLetsRootIn(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	n.roots = map[string]bool{"b:22": true}
	var seen []*ssh.Certificate
	n.saw = func(c *ssh.Certificate) { seen = append(seen, c) }
	answers, err := w.ProbeRefusals(t.Context(), Actor{UID: 7, Reason: "quarterly"}, "hpc", []string{"root"})
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != 2 || answers[0].Outcome != Refused || answers[1].Outcome != Accepted || answers[0].Account != "root" {
		t.Errorf("got %+v", answers)
	}

	// A node that does not even accept the probe's account shows nothing.
	n.pull("a:22", nil)
	if answers, err = w.ProbeRefusals(t.Context(), Actor{}, "", []string{"root"}); err != nil || answers[0].Outcome != Unknown {
		t.Errorf("got %+v, %v", answers, err)
	}

	found := false
	for _, c := range seen {
		if c.ValidPrincipals[0] != "root" {
			continue
		}
		found = true
		life := time.Duration(c.ValidBefore-c.ValidAfter) * time.Second
		if len(c.ValidPrincipals) != 1 || c.CriticalOptions["force-command"] != RefusalCommand || len(c.Extensions) != 0 || life > time.Minute {
			t.Errorf("the certificate for root is for %v with %v, %v and %s", c.ValidPrincipals, c.CriticalOptions, c.Extensions, life)
		}
		if row, err := w.Lookup(t.Context(), c.Serial); err != nil || !strings.HasPrefix(row.KeyID, "v1:refusal::root:") {
			t.Errorf("the ledger has %+v, %v", row, err)
		}
	}
	if !found {
		t.Error("no certificate for root was tried")
	}
	events := w.events(t, audit.AdminAct)
	if len(events) == 0 || events[0]["sallyport.act"] != "ca.probe_refusals" || events[0]["sallyport.uid"] != "7" ||
		events[0]["sallyport.accounts"] != "root" || events[0]["sallyport.act_reason"] != "quarterly" {
		t.Errorf("audit log: %v", events)
	}
}

func TestRefusalProbesAreFewAndForAccountsThatMayNotLogIn(t *testing.T) {
	t.Parallel()
	w, _ := newRing(t)
	for _, c := range []struct {
		accounts       []string
		system, reason string
	}{
		{nil, "", "0 accounts"},
		{[]string{"a", "b", "c", "d", "e"}, "", "5 accounts"},
		{[]string{"probe"}, "", "account of the probes"},
		{[]string{"root\n"}, "", "no account name"},
		{[]string{""}, "", "no account name"},
		{[]string{"-oProxyCommand=x"}, "", "no account name"},
		{[]string{"root"}, "nowhere", "no node"},
	} {
		_, err := w.ProbeRefusals(t.Context(), Actor{}, c.system, c.accounts)
		wantRefusal(t, err, c.reason, "")
	}
	if events := w.events(t, audit.CertificateIntent); len(events) != 0 {
		t.Errorf("certificates were made: %v", events)
	}
}
