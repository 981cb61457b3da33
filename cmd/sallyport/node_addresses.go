package main

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"sallyport/httpapi"
)

const (
	// lookupInterval is how often names of login nodes are looked up.
	lookupInterval = 10 * time.Minute
	// lookupTimeout bounds one of these.
	lookupTimeout = 10 * time.Second
)

// nodeNetworks are the networks of login nodes and mirrors: those of the configuration,
// the addresses in the nodes of systems, and those that were found for names.
func nodeNetworks(f File, found map[string][]netip.Addr) []netip.Prefix {
	list := prefixes(f.Server.NodeNetworks)
	for _, host := range nodeHosts(f) {
		addresses := found[host]
		if addr, err := netip.ParseAddr(host); err == nil {
			addresses = []netip.Addr{addr}
		}
		for _, addr := range addresses {
			addr = addr.Unmap().WithZone("")
			list = append(list, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return list
}

// nodeHosts are the names and addresses of all nodes, each once.
func nodeHosts(f File) []string {
	hosts := map[string]bool{}
	for _, s := range f.Systems {
		for _, node := range s.Nodes {
			if host, _, err := net.SplitHostPort(node); err == nil {
				hosts[host] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(hosts))
}

// followNodes has the API know the addresses of nodes that are configured by name. A name
// that cannot be looked up keeps the addresses that it had.
func followNodes(ctx context.Context, f File, api *httpapi.API, log *slog.Logger) error {
	names := slices.DeleteFunc(nodeHosts(f), func(host string) bool {
		_, err := netip.ParseAddr(host)
		return err == nil
	})
	if len(names) == 0 {
		return nil
	}
	found := map[string][]netip.Addr{}
	tick := time.NewTicker(lookupInterval)
	defer tick.Stop()
	for {
		for _, name := range names {
			limited, cancel := context.WithTimeout(ctx, lookupTimeout)
			addresses, err := net.DefaultResolver.LookupNetIP(limited, "ip", name)
			cancel()
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				log.InfoContext(ctx, "a node's name cannot be looked up, so that its requests are a stranger's", slog.String("node", name), slog.Any("error", err))
			default:
				found[name] = addresses
			}
		}
		api.SetNodes(nodeNetworks(f, found))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
