package executor

import (
	"context"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/executor/sftp"
	"sallyport/internal/fair"
)

const (
	// namesFor is how long a name of a user or group is remembered.
	namesFor = 10 * time.Minute
	// maxNames bounds the names that are remembered of one system in all, maxNamesOfOne those
	// that one person has seen, who loses the oldest to the next.
	maxNames, maxNamesOfOne = 50_000, 5000
	// maxName bounds one in bytes (limits.h, LOGIN_NAME_MAX).
	maxName = 256
)

// nameKey is a user or group as a caller has seen it. It has the caller in it because
// the answer comes from processes of the caller, who could give any.
type nameKey struct {
	key
	group bool
	id    uint32
}

// nameCache remembers names of users and groups.
type nameCache struct {
	mu      sync.Mutex                          // guards entries
	entries fair.Table[person, nameKey, string] // an empty name: there is none
}

func newNameCache() *nameCache {
	return &nameCache{entries: fair.Table[person, nameKey, string]{Most: maxNames, Each: maxNamesOfOne}}
}

// known splits ids into those that are remembered, by their names, and the others.
func (c *nameCache) known(k key, group bool, ids []uint32) (names map[uint32]string, missing []uint32) {
	names = make(map[uint32]string, len(ids))
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if _, twice := names[id]; twice {
			continue
		}
		names[id] = strconv.FormatUint(uint64(id), 10)
		name, ok := c.entries.Get(nameKey{k, group, id}, now)
		switch {
		case !ok:
			missing = append(missing, id)
		case name != "":
			names[id] = name
		}
	}
	return names, missing
}

// learn remembers the names of ids, also that there is none, and adds them to names.
func (c *nameCache) learn(k key, group bool, ids []uint32, found, names map[uint32]string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		name := found[id]
		if !presentable(name) {
			name = ""
		}
		if name != "" {
			names[id] = name
		}
		c.entries.Put(k.person(), nameKey{k, group, id}, name, now, now.Add(namesFor))
	}
}

func presentable(name string) bool {
	if len(name) > maxName || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Names returns the names of users and groups on the node, by their numbers; one
// that has none there is called by its number. They are remembered for ten minutes,
// for this caller only: the node's answer is made by processes of the caller.
func (f *Files) Names(ctx context.Context, uids, gids []uint32) (users, groups map[uint32]string, err error) {
	k := keyOf(f.caller, f.Node())
	cache := f.system.names
	users, missingUsers := cache.known(k, false, uids)
	groups, missingGroups := cache.known(k, true, gids)
	const most = 64 // in one request
	for len(missingUsers)+len(missingGroups) > 0 {
		askUsers, askGroups := missingUsers[:min(most, len(missingUsers))], missingGroups[:min(most, len(missingGroups))]
		missingUsers, missingGroups = missingUsers[len(askUsers):], missingGroups[len(askGroups):]
		foundUsers, foundGroups, err := f.lookUp(ctx, askUsers, askGroups)
		if err != nil {
			return nil, nil, f.count(f.fileError(ctx, "names", "", false, err))
		}
		cache.learn(k, false, askUsers, foundUsers, users)
		cache.learn(k, true, askGroups, foundGroups, groups)
	}
	return users, groups, nil
}

// lookUp asks the node for names.
func (f *Files) lookUp(ctx context.Context, uids, gids []uint32) (users, groups map[uint32]string, err error) {
	if f.channel != nil && !f.channel.client.Has(sftp.NamesByID) {
		if f.caller.Narrow() {
			return nil, nil, nil // numbers must do
		}
		return f.commands().names(ctx, uids, gids) // before OpenSSH 9.1
	}
	return f.via.names(ctx, uids, gids)
}

// IDs returns the numbers of a user and a group on the node; nil for an empty name.
// A number that no name has stands for itself. It takes a command.
func (f *Files) IDs(ctx context.Context, user, group string) (uid, gid *uint32, err error) {
	for _, ask := range []struct {
		table, name string
		id          **uint32
	}{{"passwd", user, &uid}, {"group", group, &gid}} {
		if ask.name == "" {
			continue
		}
		err := f.lookBy(ctx, "lookup", ask.name, byItself, func() (err error) {
			*ask.id, err = f.commands().id(ctx, ask.table, ask.name)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return uid, gid, nil
}

func (b *bySFTP) names(ctx context.Context, uids, gids []uint32) (users, groups map[uint32]string, err error) {
	u, g, err := b.client.Names(ctx, uids, gids)
	if err != nil {
		return nil, nil, b.told(err, nil)
	}
	users, groups = make(map[uint32]string), make(map[uint32]string)
	for i, id := range uids {
		users[id] = u[i]
	}
	for i, id := range gids {
		groups[id] = g[i]
	}
	return users, groups, nil
}
