package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
)

const ledgerPrefix = "ledger/"

// Issued is one row of the ledger. A row is written before the signature, so a row
// without a certificate can exist, and a certificate without a row cannot.
type Issued struct {
	Serial      uint64    `json:"serial,string"` // above 2^53, where JSON numbers end
	KeyID       string    `json:"key_id"`
	Profile     string    `json:"profile"`
	Principals  []string  `json:"principals"`
	ValidAfter  time.Time `json:"valid_after"`
	ValidBefore time.Time `json:"valid_before"`
	// Issuer is the alias of the identity provider, which may change; IssuerURL does not,
	// and is empty in rows of older versions.
	Issuer    string `json:"issuer"`
	IssuerURL string `json:"issuer_url,omitempty"`

	Subject string `json:"subject"`
	Login   string `json:"login"`
	// PublicKey and CA are fingerprints ("SHA256:…") of the certified key and of
	// the key that signed.
	PublicKey string    `json:"public_key"`
	CA        string    `json:"ca"`
	RequestID string    `json:"request_id"`
	IssuedAt  time.Time `json:"issued_at"`
}

func ledgerKey(serial uint64) string { return fmt.Sprintf("%s%016x", ledgerPrefix, serial) }

// enter writes the row of d. It fails if the serial was ever used within the
// retention: the store creates an entry only where there is none.
func (a *Authority) enter(ctx context.Context, d *draft, caKey, requestID string) error {
	row := Issued{
		Serial:      d.serial,
		KeyID:       d.keyID,
		Profile:     d.profile,
		Principals:  d.principals,
		ValidAfter:  unixTime(d.validAfter),
		ValidBefore: unixTime(d.validBefore),
		Issuer:      d.caller.Alias(),
		IssuerURL:   d.caller.Issuer(),
		Subject:     d.caller.Subject(),
		Login:       d.caller.Login(),
		PublicKey:   ssh.FingerprintSHA256(d.key),
		CA:          caKey,
		RequestID:   requestID,
		IssuedAt:    time.Now().UTC(),
	}
	value, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode ledger row: %w", err)
	}
	_, err = a.store.Put(ctx, store.Entry{
		Key:     ledgerKey(d.serial),
		Value:   value,
		Expires: row.ValidBefore.Add(a.retention),
	})
	if err != nil {
		return fmt.Errorf("%w: ledger: %w", ErrUnavailable, err)
	}
	return nil
}

// unixTime is only given times that validity has calculated in int64.
func unixTime(seconds uint64) time.Time {
	return time.Unix(int64(seconds), 0).UTC() //nolint:gosec // see above: it came from an int64
}

// Lookup returns the row of a serial, or an error that wraps [ErrNotFound].
func (a *Authority) Lookup(ctx context.Context, serial uint64) (Issued, error) {
	e, err := a.store.Get(ctx, ledgerKey(serial))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Issued{}, fmt.Errorf("serial %d: %w", serial, ErrNotFound)
	case err != nil:
		return Issued{}, fmt.Errorf("%w: ledger: %w", ErrUnavailable, err)
	}
	return decodeRow(e)
}

// Ledger yields all rows, by ascending serial, until LedgerRetention after their
// expiry. A row that cannot be read is yielded as an error, and the next follow;
// an error that wraps [ErrUnavailable] is the last.
func (a *Authority) Ledger(ctx context.Context) iter.Seq2[Issued, error] {
	return func(yield func(Issued, error) bool) {
		for e, err := range a.store.List(ctx, ledgerPrefix) {
			if err != nil {
				yield(Issued{}, fmt.Errorf("%w: ledger: %w", ErrUnavailable, err))
				return
			}
			if !yield(decodeRow(e)) {
				return
			}
		}
	}
}

func decodeRow(e store.Entry) (Issued, error) {
	var row Issued
	if err := json.Unmarshal(e.Value, &row); err != nil {
		return Issued{}, fmt.Errorf("ledger row %q is damaged: %w", e.Key, err)
	}
	if ledgerKey(row.Serial) != e.Key {
		return Issued{}, fmt.Errorf("ledger row %q is damaged: it speaks of serial %d", e.Key, row.Serial)
	}
	return row, nil
}
