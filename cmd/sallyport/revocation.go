package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/ca"
	"sallyport/ca/approval"
	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/identity"
)

func issuersOf(f File) revocation.Issuers {
	var list revocation.Issuers
	for _, s := range f.Issuers {
		list = append(list, revocation.Issuer{Alias: s.Alias, URL: s.URL, Former: s.FormerNames})
	}
	return list
}

// openRegister reads the revocations that stand, which need no CA.
func (d *daemon) openRegister(p *parts) (err error) {
	p.revoked, err = revocation.Open(context.Background(), revocation.Config{
		Store: p.db, Audit: p.recorder(), Issuers: issuersOf(p.file), Logger: p.log,
	})
	return err
}

// A barrier refuses whose access was revoked: at admission by who it is and which accounts
// that means, and before a login by what it would be done with.
type barrier struct {
	*revocation.Register
	// accounts are those that a caller uses beside the login; nil: there are none.
	accounts func(identity.Identity) []string
	// own says that certificates are our authority's, which has judged by its ledger
	// when each was issued: in the certificate stands an earlier time.
	own bool
}

// Admit is for [httpapi.Gate].
func (g barrier) Admit(caller identity.Identity) error {
	if g.accounts == nil {
		return g.Register.Admit(caller)
	}
	return g.Register.Admit(caller, g.accounts(caller)...)
}

// Refuse is for [executor.Gate].
func (g barrier) Refuse(s executor.Session) error {
	u := httpapi.UseOf(s)
	for i := range u.Grants {
		if g.own {
			u.Grants[i].Issued = time.Now()
		}
	}
	return g.Register.Refuse(u)
}

// lifts is a register without an authority, whose acts end only with the approval of
// another person if that is demanded.
type lifts struct {
	*revocation.Register
	approvals *approval.Gate
}

// Lift is that of the register.
func (l lifts) Lift(ctx context.Context, actor ca.Actor, act revocation.Act) (revocation.Done, error) {
	named, err := l.ToLift(ctx, actor, act)
	if err == nil {
		err = ca.ApproveLift(ctx, l.approvals, actor, named, l.Index())
	}
	if err != nil {
		return revocation.Done{}, err
	}
	return l.Register.Lift(ctx, actor, act)
}

// unreached says where access may go on after an act, a sentence each. What is promised
// of an act is all else.
func unreached(f File) func(revocation.Act) []string {
	return func(act revocation.Act) (list []string) {
		say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
		if f.CA.Enabled {
			say("login nodes follow when they fetch the revocation list next; until then a certificate that somebody copied is good there")
		} else {
			say("this process has no CA: certificates that another CA has issued stay good on login nodes until they end; revoke there too")
		}
		if f.CA.Enabled && f.Executor.Enabled && f.Executor.elsewhere() {
			say("%s issues certificates too, by executor.remote.url: revoke there, or they stay good on login nodes until they end", f.Executor.Remote.URL)
		}
		if f.CA.Enabled && !f.Executor.Enabled {
			say("executors that are other processes go on with keys, and with certificates of other CAs, until it is revoked there too")
		}
		if f.Executor.Enabled && f.Executor.Credentials == "static" {
			list = append(list, staticLeft(f, act)...)
		}
		if act.OfPerson() || act.Kind == revocation.Key {
			say("what runs on login nodes without this service goes on there: jobs that were submitted, processes that left their session, logins by other ways")
		}
		return list
	}
}

// staticLeft says which keys of the configuration stay good on the nodes.
func staticLeft(f File, act revocation.Act) (list []string) {
	for _, s := range f.StaticKeys {
		ours := false
		switch act.Kind {
		case revocation.User:
			ours = strings.EqualFold(s.Login, act.Value) || strings.EqualFold(s.User, act.Value)
		case revocation.Subject:
			for _, i := range f.Issuers {
				ours = ours || (i.Alias == s.Issuer && i.URL+"#"+s.Subject == act.Value)
			}
		case revocation.Key, revocation.Serial, revocation.KeyID, revocation.IssuedBefore:
			ours = true
		}
		sentence := fmt.Sprintf("the key %q of static_keys stays good on login nodes for whoever has it: remove it there", s.KeyFile)
		if ours && !slices.Contains(list, sentence) {
			list = append(list, sentence)
		}
	}
	if len(list) == 0 && act.OfPerson() {
		list = []string{"keys of static_keys are not tied to this name: what they open without this service goes on"}
	}
	return list
}
