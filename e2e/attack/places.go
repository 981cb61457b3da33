package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// strangers are attacks by who has no token, on the places of those who have one and of
// the nodes that learn of revocations.
func strangers() []attack {
	var all []attack
	for _, target := range []struct{ name, path, token string }{
		{"the documentation", "/docs", ""},
		{"the list of revoked keys", "/v1/ca/revoked-keys", ""},
		{"/readyz", "/readyz", ""},
		{"a path that is none", "/nothing", ""},
		{"a call, with a forged token", "/v1/whoami", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"},
	} {
		all = append(all, attack{
			name: "5 x 220 streams that take nothing: " + target.name, expected: "others are served",
			run: func(ctx context.Context, s *site) (string, error) {
				return s.besieged(ctx, func(ctx context.Context, v *service) {
					var running sync.WaitGroup
					defer running.Wait()
					for range 5 {
						running.Go(func() { v.takeNothing(ctx, target.path, target.token, 220) })
					}
				})
			},
		})
	}
	for _, addresses := range []int{1, 250} {
		all = append(all, attack{
			name: fmt.Sprintf("1000 connections that send nothing, from %d addresses", addresses), expected: "others are served",
			run: func(ctx context.Context, s *site) (string, error) {
				return s.besieged(ctx, func(ctx context.Context, v *service) { v.occupy(ctx, 1000, addresses) })
			},
		})
	}
	return all
}

// besieged says whether callers and nodes are served while somebody attacks.
func (s *site) besieged(ctx context.Context, siege func(ctx context.Context, v *service)) (string, error) {
	folder, err := os.MkdirTemp(s.dir, "tls")
	if err != nil {
		return "", err
	}
	pair, err := selfSigned(folder)
	if err != nil {
		return "", err
	}
	v, err := s.serve(ctx, settings{server: pair + "max_connections = 256\nmax_connections_per_address = 64"})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(folder, "node")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	key, err := os.ReadFile(filepath.Join(v.dir, "distribution_key.pub"))
	if err != nil {
		return "", err
	}
	signers := fmt.Sprintf("sallyport-distribution namespaces=\"sallyport-manifest\" %s", key)
	if err := os.WriteFile(filepath.Join(dir, "distribution_signers"), []byte(signers), 0o600); err != nil { //nolint:gosec // a folder of ours
		return "", err
	}
	attacked, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	running.Go(func() { siege(attacked, v) })
	time.Sleep(time.Second) // until the attack has what it can have
	for range 5 {
		for _, c := range []call{
			{path: "/v1/whoami", token: token},
			{path: "/v1/systems/node/exec", token: token, body: map[string]any{"command": "true"}},
			{path: "/v1/ca/manifest"},
			{path: "/v1/ca/manifest.sig"},
			{path: "/v1/ca/revoked-keys"},
			{path: "/v1/ca/trusted-user-ca-keys"},
		} {
			a, err := v.call(ctx, c)
			if err != nil || a.status != http.StatusOK {
				return fmt.Sprintf("%s: %s, %v", c.path, a, err), nil
			}
		}
		out, code, err := v.command(ctx, "node", "sync", "--url", "https://"+v.address, "--tls-ca", filepath.Join(folder, "tls.crt"), "--dir", dir, "--sshd", "none")
		if err != nil || code != 0 {
			return fmt.Sprintf("node sync: exit code %d: %s", code, out), err
		}
	}
	return "others are served", nil
}

// selfSigned makes a certificate for loopback and returns the settings that name it.
func selfSigned(dir string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	var settings strings.Builder
	for _, f := range []struct {
		name, setting, kind string
		bytes               []byte
	}{{"tls.crt", "tls_certificate", "CERTIFICATE", der}, {"tls.key", "tls_key", "PRIVATE KEY", secret}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.bytes}), 0o600); err != nil {
			return "", err
		}
		fmt.Fprintf(&settings, "%s = %q\n", f.setting, path)
	}
	return settings.String(), nil
}

// takeNothing holds streams of HTTP/2 open whose window is 0, and renews those that end.
func (v *service) takeNothing(ctx context.Context, path, token string, streams int) {
	for ctx.Err() == nil {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} //nolint:gosec // an attacker does not care
		conn, err := dialer.DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		v.renew(conn, path, token, streams)
		stop()
		_ = conn.Close() // it may be closed
	}
}

// renew attacks through one connection until it ends.
func (v *service) renew(conn net.Conn, path, token string, streams int) {
	framer, next := http2.NewFramer(conn, conn), uint32(1)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	open := func() error {
		block.Reset()
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", v.address}, {":path", path}, {"authorization", "Bearer " + token}} {
			if field[0] != "authorization" || token != "" {
				_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
			}
		}
		id := next
		next += 2
		return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	}
	_, err := io.WriteString(conn, http2.ClientPreface)
	if err == nil {
		err = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}
	for n := 0; err == nil; n++ {
		if n < streams {
			err = open()
			continue
		}
		if n%streams == 0 {
			time.Sleep(10 * time.Millisecond) // bounded: the attack runs on the service's processors
		}
		var frame http2.Frame
		if frame, err = framer.ReadFrame(); err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.RSTStreamFrame:
			err = open()
		default:
			if frame.Header().Flags.Has(http2.FlagDataEndStream) {
				err = open()
			}
		}
	}
}

// occupy holds so many connections open that send nothing, and renews the oldest.
func (v *service) occupy(ctx context.Context, count, addresses int) {
	held := make([]net.Conn, count)
	for i := 0; ctx.Err() == nil; i = (i + 1) % count {
		if held[i] != nil {
			_ = held[i].Close() // it may be closed
		}
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%addresses))}} //nolint:gosec // at most 250 addresses
		held[i], _ = dialer.DialContext(ctx, "tcp", v.address)
		if i%10 == 0 {
			time.Sleep(10 * time.Millisecond) // bounded
		}
	}
	for _, conn := range held {
		if conn != nil {
			_ = conn.Close()
		}
	}
}
