// Package s3 is storage that speaks S3, as the place between clients and systems: a
// client uploads an object that a job on the system fetches, or the other way round.
//
// The guarantee: nobody gets a key. Whoever sends or receives gets addresses that are
// signed for one object, one method and a time (AWS Signature Version 4, presigned), and
// an object's name cannot be guessed.
//
// The threat is a caller who chooses names and sizes: names are reduced to a safe
// alphabet, sizes and the number of parts are bounded. The caveat: whoever holds an
// address can use it until it ends, so it is a secret as long as that; and nothing here
// removes objects, which a lifecycle rule of the bucket has to do.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The limits of Amazon S3, which other servers keep: the number of parts of an object, the
// sizes of a part (the last one may be smaller) and of an object in bytes, and the time
// that a signature can be good for.
const (
	MaxParts  = 10_000
	MinPart   = 5 << 20
	MaxPart   = 5 << 30
	MaxObject = 5 << 40

	MaxLifetime = 7 * 24 * time.Hour
)

// callTimeout bounds a call of the storage.
const callTimeout = 10 * time.Second

// ErrUnavailable says that the storage cannot be reached, or refuses to do its part.
var ErrUnavailable = errors.New("object storage is not available")

// Config names a storage.
type Config struct {
	// PublicURL is where clients reach it, PrivateURL where this service and the systems
	// do; empty means PublicURL.
	PublicURL, PrivateURL string
	Region, Bucket        string
	AccessKeyID           string
	SecretAccessKey       string
	// PartSize is the greatest size of a part, in bytes; default 1 GiB. Objects of more
	// than 10,000 parts have larger ones.
	PartSize int64
	// Lifetime is how long addresses are good; default 7 days.
	Lifetime time.Duration
}

var bucketName = regexp.MustCompile(`\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\z`)

func (c Config) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, address := range []string{c.PublicURL, c.PrivateURL} {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
			refuse("url %q is not an http or https URL without a path", address)
		}
	}
	if !bucketName.MatchString(c.Bucket) {
		refuse("bucket %q is not 3 to 63 of a-z, 0-9, '.' and '-'", c.Bucket)
	}
	if c.Region == "" || c.AccessKeyID == "" || c.SecretAccessKey == "" {
		refuse("region, access key id and secret access key are required")
	}
	if c.PartSize < MinPart || c.PartSize > MaxPart {
		refuse("part size %d is not from %d to %d", c.PartSize, MinPart, int64(MaxPart))
	}
	if c.Lifetime < time.Minute || c.Lifetime > MaxLifetime {
		refuse("lifetime %s is not from 1m to %s", c.Lifetime, MaxLifetime)
	}
	return errors.Join(errs...)
}

// A Storage is safe for concurrent use.
type Storage struct {
	cfg             Config
	public, private *minio.Core
	transport       *http.Transport
}

// New checks cfg; nothing is sent.
func New(cfg Config) (*Storage, error) {
	cfg.PrivateURL = cmp.Or(cfg.PrivateURL, cfg.PublicURL)
	cfg.PartSize, cfg.Lifetime = cmp.Or(cfg.PartSize, 1<<30), cmp.Or(cfg.Lifetime, MaxLifetime)
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	s := &Storage{cfg: cfg, transport: http.DefaultTransport.(*http.Transport).Clone()}
	var err error
	if s.public, err = s.client(cfg.PublicURL); err == nil {
		s.private, err = s.client(cfg.PrivateURL)
	}
	return s, err
}

func (s *Storage) client(address string) (*minio.Core, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(s.cfg.AccessKeyID, s.cfg.SecretAccessKey, ""),
		Secure: u.Scheme == "https", Region: s.cfg.Region, Transport: s.transport,
		// A bucket in the host's name needs DNS and certificates that few centres have.
		BucketLookup: minio.BucketLookupPath, MaxRetries: 2,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return core, nil
}

// A Description is what clients may know of a storage.
type Description struct {
	PublicURL, Region string
	PartSize          int64
	Lifetime          time.Duration
}

// Describe returns it.
func (s *Storage) Describe() Description {
	return Description{PublicURL: s.cfg.PublicURL, Region: s.cfg.Region, PartSize: s.cfg.PartSize, Lifetime: s.cfg.Lifetime}
}

// Close closes idle connections.
func (s *Storage) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// A Side is who sends or receives.
type Side int

// The sides of a transfer: the clients of the API, and the jobs on systems.
const (
	Client Side = iota
	System
)

func (s *Storage) of(side Side) *minio.Core {
	if side == Client {
		return s.public
	}
	return s.private
}

// An Object is one that is to come, with the addresses for both sides.
type Object struct {
	// PutURLs take its parts (PUT), each of PartSize bytes but the last. CompleteURL takes
	// the list of their ETags then (POST, CompleteMultipartUpload).
	PutURLs     []string
	PartSize    int64
	CompleteURL string
	// GetURL answers 404 until it is complete.
	GetURL string

	key, upload string
}

// Stage begins an object of so many bytes that the one side sends and the other receives.
// The errors wrap ErrUnavailable.
func (s *Storage) Stage(ctx context.Context, key string, size int64, from, to Side) (Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	parts, partSize := s.split(size)
	upload, err := s.private.NewMultipartUpload(ctx, s.cfg.Bucket, key, minio.PutObjectOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return Object{}, fmt.Errorf("%w: beginning an upload to bucket %q: %w", ErrUnavailable, s.cfg.Bucket, err)
	}
	o := Object{PartSize: partSize, key: key, upload: upload}
	for n := range parts {
		part, err := s.sign(ctx, from, http.MethodPut, key, url.Values{"partNumber": {strconv.Itoa(n + 1)}, "uploadId": {upload}})
		if err != nil {
			return Object{}, err
		}
		o.PutURLs = append(o.PutURLs, part)
	}
	if o.CompleteURL, err = s.sign(ctx, from, http.MethodPost, key, url.Values{"uploadId": {upload}}); err != nil {
		return Object{}, err
	}
	o.GetURL, err = s.sign(ctx, to, http.MethodGet, key, nil)
	return o, err
}

// split says how many parts an object has, and of which size.
func (s *Storage) split(size int64) (parts int, partSize int64) {
	partSize = s.cfg.PartSize
	if least := (size + MaxParts - 1) / MaxParts; least > partSize {
		const mebi = 1 << 20
		partSize = (least + mebi - 1) / mebi * mebi
	}
	return int(max(1, (size+partSize-1)/partSize)), partSize
}

func (s *Storage) sign(ctx context.Context, side Side, method, key string, query url.Values) (string, error) {
	u, err := s.of(side).Presign(ctx, method, s.cfg.Bucket, key, s.cfg.Lifetime, query)
	if err != nil {
		return "", fmt.Errorf("%w: signing an address: %w", ErrUnavailable, err)
	}
	return u.String(), nil
}

// Abort gives up an object that is not complete. It is a courtesy: the bucket's lifecycle
// rule does it too, later.
func (s *Storage) Abort(ctx context.Context, o Object) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_ = s.private.AbortMultipartUpload(ctx, s.cfg.Bucket, o.key, o.upload)
}
