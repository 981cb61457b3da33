package firecrest

import (
	"bytes"
	"context"
	"sync"
	"time"

	"sallyport/executor"
	"sallyport/internal/fair"
)

const (
	zoneKept = 10 * time.Minute
	maxZones = 1000
	maxZone  = 64 << 10 // bytes of a file of time zone data
)

// zones remembers the time zone of a system's nodes: listings have local times. It
// does so for each person, since what answers is a process of that person.
type zones struct {
	mu    sync.Mutex // guards known
	known fair.Table[person, person, *time.Location]
}

func newZones() *zones {
	return &zones{known: fair.Table[person, person, *time.Location]{Most: maxZones, Each: 1}}
}

// zone is the time zone of the node, UTC if that has none.
func (c *call) zone(ctx context.Context, files *executor.Files) *time.Location {
	who, now := c.person(), time.Now()
	z := c.system.zones
	z.mu.Lock()
	known, ok := z.known.Get(who, now)
	z.mu.Unlock()
	if ok {
		return known
	}
	zone := readZone(ctx, files.Unfenced())
	if ctx.Err() != nil {
		return zone
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.known.Put(who, who, zone, now, now.Add(zoneKept))
	return zone
}

func readZone(ctx context.Context, files *executor.Files) *time.Location {
	file, err := files.Open(ctx, "/etc/localtime")
	if err != nil {
		return time.UTC
	}
	defer file.Close()
	var data bytes.Buffer
	if _, err := file.WriteRange(ctx, &data, 0, maxZone); err != nil {
		return time.UTC
	}
	zone, err := time.LoadLocationFromTZData("node", data.Bytes())
	if err != nil {
		return time.UTC
	}
	return zone
}
