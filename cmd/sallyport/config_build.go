package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
	"sallyport/store/audit"
)

// The functions of this file translate sections of the configuration file into
// the Config structs of the packages.

func (f File) databasePath() string { return filepath.Join(f.DataDir, "sallyport.db") }

func identityConfig(f File, log *slog.Logger) identity.Config {
	cfg := identity.Config{ProofMaxAge: f.DPoP.MaxAge, ProofNonces: f.DPoP.Nonces, Logger: log, KeepClaims: len(f.Policy.Rules) > 0 || len(f.Approval.AdminGroups) > 0}
	for _, s := range f.Issuers {
		cfg.Issuers = append(cfg.Issuers, identity.IssuerConfig{
			Alias: s.Alias, URL: s.URL, Audiences: s.Audiences, Algorithms: s.Algorithms,
			JWKSURL: s.JWKSURL, JWKSFile: s.JWKSFile, Type: s.Type,
			RequiredScopes: s.RequiredScopes, RequiredClaims: s.RequiredClaims, AllowedClients: s.AllowedClients,
			LoginClaim: s.LoginClaim, Login: identity.LoginRule{Pattern: s.LoginPattern, Deny: s.DenyLogins},
			MinLifetime: s.MinLifetime, MaxLifetime: s.MaxLifetime, Leeway: s.Leeway,
			RefreshInterval: s.RefreshInterval, MinRefreshInterval: s.MinRefreshInterval, MaxStale: s.MaxStale,
			AllowHTTP: s.AllowHTTP, Binding: identity.Binding(s.TokenBinding),
		})
	}
	return cfg
}

func caConfig(f File, p *parts) ca.Config {
	return ca.Config{
		Key: p.keys.initial, Keys: p.keys.folder, Revocations: p.revoked, Store: p.db, Audit: p.recorder(), Approvals: p.gate, Logger: p.log, LedgerRetention: f.CA.LedgerRetention,
		Rotation: rotationConfig(f),
		Profiles: []ca.ProfileConfig{
			profileConfig(ca.ProfileExecutor, f.CA.Profiles.Executor),
			profileConfig(ca.ProfileJump, f.CA.Profiles.Executor),
			profileConfig(ca.ProfileUser, f.CA.Profiles.User),
		},
	}
}

func rotationConfig(f File) ca.RotationConfig {
	r := f.CA.Rotation
	return ca.RotationConfig{
		Prober: credential.NewProber(systems(f)), ProbeUser: r.ProbeLogin, PullInterval: r.PullInterval, MaxSkew: r.MaxSkew,
	}
}

func profileConfig(name string, s ProfileSection) ca.ProfileConfig {
	return ca.ProfileConfig{
		Name: name, DefaultTTL: s.DefaultTTL, MaxTTL: s.MaxTTL, Backdate: s.Backdate, ExpiryGrace: s.ExpiryGrace,
		Extensions: s.Extensions, SourceAddresses: prefixes(s.SourceAddresses), ExtraPrincipals: s.ExtraPrincipals,
	}
}

func staticConfig(f File) credential.StaticConfig {
	var cfg credential.StaticConfig
	for _, s := range f.StaticKeys {
		cfg.Keys = append(cfg.Keys, credential.StaticKey{
			Issuer: s.Issuer, Subject: s.Subject, Login: s.Login, User: s.User,
			KeyFile: s.KeyFile, PassphraseFile: s.PassphraseFile, CertificateFile: s.CertificateFile,
		})
	}
	return cfg
}

func executorConfig(p *parts, provider executor.CredentialProvider) executor.Config {
	s := p.file.Executor
	cfg := executor.Config{
		Credentials: provider, Gate: p.barrier, Audit: p.recorder(), AuditCommands: p.file.Audit.Commands, AuditChangesOnly: p.file.Audit.Files == "changes",
		MaxOutput: s.MaxOutput, Logger: p.log,
		Pool: executor.PoolLimits{
			MaxConns: int(s.MaxConnections), MaxWaiters: int(s.MaxWaiting), WaitTimeout: s.WaitTimeout,
			IdleTimeout: s.IdleTimeout, MaxLifetime: s.MaxLifetime,
			ProbeInterval: s.KeepaliveInterval, ProbeTimeout: s.KeepaliveTimeout,
		},
	}
	cfg.Systems = systems(p.file)
	return cfg
}

func systems(f File) (list []executor.System) {
	for _, y := range f.Systems {
		list = append(list, executor.System{
			Name: y.Name, Description: y.Description, Nodes: y.Nodes, Jump: y.Jump, KnownHosts: y.KnownHosts,
			Logins:      identity.LoginRule{Pattern: y.LoginPattern, Allow: y.AllowLogins, Deny: y.DenyLogins},
			MaxSessions: int(y.MaxSessions), MaxConnections: int(y.MaxConnections), MaxHandshakes: int(y.MaxHandshakes), MaxStarts: int(y.MaxStarts),
			Sessions: executor.Sessions(y.Sessions), WarmAfter: int(y.WarmAfter),
			ConnectTimeout: y.ConnectTimeout, DefaultTimeout: y.DefaultTimeout, MaxTimeout: y.MaxTimeout, Grace: y.Grace,
		})
	}
	return list
}

func firecrestConfig(p *parts, commands *executor.Executor) firecrest.Config {
	s := p.file.FirecREST
	cfg := firecrest.Config{Commands: commands, MaxBody: s.MaxBody, MaxFile: s.MaxOpsFileSize, Logger: p.log}
	if p.authority != nil && p.file.CA.Rotation.ProbeLogin != "" {
		cfg.Probes = probesOf(p.authority, p.log)
	}
	for _, y := range p.file.Systems {
		system := firecrest.System{
			Name: y.Name, Scheduler: y.FirecREST.Scheduler, SchedulerVersion: y.FirecREST.SchedulerVersion, Jump: y.Jump,
			MaxClients: int(p.file.Executor.MaxConnections), ConnectTimeout: y.ConnectTimeout,
			IdleTimeout: p.file.Executor.IdleTimeout, KeepaliveInterval: p.file.Executor.KeepaliveInterval,
		}
		for _, fs := range y.FirecREST.FileSystems {
			system.FileSystems = append(system.FileSystems, firecrest.FileSystem(fs))
		}
		cfg.Systems = append(cfg.Systems, system)
	}
	return cfg
}

// probesOf shows the probes that watch how nodes follow a rotation of CA keys.
func probesOf(authority *ca.Authority, log *slog.Logger) func(context.Context) []firecrest.Probe {
	return func(ctx context.Context) (probes []firecrest.Probe) {
		nodes, err := authority.Nodes(ctx)
		if err != nil {
			log.WarnContext(ctx, "probes of login nodes cannot be read", slog.Any("error", err))
		}
		for _, n := range nodes {
			p := firecrest.Probe{System: n.System, At: n.At, Refused: true}
			for _, k := range n.Keys {
				p.Answered = p.Answered || k.Outcome != ca.Unknown
				p.Refused = p.Refused && k.Outcome == ca.Refused
			}
			probes = append(probes, p)
		}
		return probes
	}
}

// defaultRate is that of a caller for whom the configuration has none. It is above what the
// pollers of many jobs make, and below what keeps others from a node or fills a disk soon.
const defaultPerMinute, defaultBurst = 6000, 1000

func rates(f File) (list []httpapi.RatePolicy) {
	for _, r := range f.Rates {
		list = append(list, httpapi.RatePolicy{
			Issuer: r.Issuer, Client: r.Client, Login: r.Login,
			Each: httpapi.Rate{PerMinute: int(r.UserPerMinute), Burst: int(r.UserBurst)},
			All:  httpapi.Rate{PerMinute: int(r.ClientPerMinute), Burst: int(r.ClientBurst)},
		})
	}
	return append(list, httpapi.RatePolicy{Each: httpapi.Rate{PerMinute: defaultPerMinute, Burst: defaultBurst}})
}

func auditConfig(f File, log *slog.Logger) audit.Config {
	return audit.Config{
		Dir: f.Audit.Dir, MaxBytes: f.Audit.MaxFileBytes, Logger: log, Limits: audit.Limits{
			BytesPerMinute: f.Audit.CallerBytesPerMinute, Reserve: f.Audit.ReserveBytes, MaxTotal: f.Audit.MaxTotalBytes,
		},
	}
}

func (d *daemon) apiConfig(p *parts, mounts []httpapi.Mounted) httpapi.Config {
	commands := d.executor
	cfg := httpapi.Config{
		Tokens: p.tokens, Audit: p.recorder(), Observer: p.metrics, Metrics: metricsHandler(p.metrics), Snapshots: p.db, Checks: readyChecks(p), ReadyFor: 250 * time.Millisecond, Version: version, Logger: p.log,
		TrustedProxies: prefixes(p.file.Server.TrustedProxies), MaxExecBody: p.file.Server.MaxBody, HSTS: p.file.Server.HSTSMaxAge,
		Nodes: nodeNetworks(p.file, nil), MaxStreams: int(p.file.Server.MaxStreams),
		MaxAnonymous: int(p.file.Server.MaxAnonymous), MaxAnonymousPerAddress: int(p.file.Server.MaxAnonymousPerAddress),
		PublicURLs: p.file.Server.PublicURLs, ProofNonce: p.tokens.Nonce, OwnName: ownNames(p.file.Server),
		MaxInFlight: int(p.file.Server.MaxInFlight), MaxInFlightPerCaller: int(p.file.Server.MaxInFlightPerCaller),
		Rates:      rates(p.file),
		BodyMemory: max(httpapi.DefaultBodyMemory, 4*httpapi.BodyMemory(p.file.FirecREST.MaxBody)), // one caller's quarter has room for one
		MaxOutput:  p.file.Executor.MaxOutput, OutputMemory: p.file.Executor.OutputMemory,
		Status: map[string]func() any{"audit": func() any { return auditStatusOf(p) }}, Mounts: mounts,
	}
	cfg.Gate, cfg.Revocations, cfg.Unreached = p.barrier, lifts{p.revoked, p.gate}, unreached(p.file)
	cfg.Approvals = p.gate
	// A nil pointer in an interface is not nil: assign only what is there.
	if p.authority != nil {
		cfg.Certificates, cfg.Ledger, cfg.Ring = p.authority, p.authority, p.authority
		cfg.Revocations, cfg.Refusals = p.authority, p.authority
		cfg.Compat = httpapi.Compat(p.file.CA.Compat)
		cfg.Distribution = p.manifests
		cfg.Status["distribution"] = func() any { return p.manifests.Status(context.Background()) }
		cfg.Status["ca"] = func() any { return statusOf(p.authority) }
	}
	if p.policy != nil {
		cfg.Policy = p.policy
	}
	if p.approvers != nil {
		cfg.Approvers = p.approvers
	}
	if commands != nil {
		cfg.Commands, cfg.Sessions = commands, commands
		cfg.Status["executor"] = func() any { return commands.Stats() }
	}
	if d.follower != nil {
		cfg.Status["revocation_list"] = func() any { return d.follower.State() }
	}
	return cfg
}
