package firecrest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/executor"
)

// A fileView is a file as ls(1) shows it.
type fileView struct {
	Name         string  `json:"name"`
	Type         string  `json:"type"`
	LinkTarget   *string `json:"linkTarget"`
	User         string  `json:"user"`
	Group        string  `json:"group"`
	Permissions  string  `json:"permissions"`
	LastModified string  `json:"lastModified"`
	Size         string  `json:"size"`
}

// An entry is what a listing keeps of a file.
type entry struct {
	dir, base, target string
	mode, uid, gid    uint32
	size, modified    int64
}

func entryOf(i executor.FileInfo) entry {
	e := entry{base: i.Name, target: i.Target, mode: i.Mode, uid: i.UID, gid: i.GID, size: i.Size, modified: i.Modified.Unix()}
	if slash := strings.LastIndexByte(i.Name, '/') + 1; slash > 0 {
		e.dir, e.base = i.Name[:slash], i.Name[slash:]
	}
	return e
}

// compare puts entries in the order of ls -R: the entries of a directory, and then
// those of each directory in it.
func (e entry) compare(other entry) int {
	return cmp.Or(comparePaths(e.dir, other.dir), strings.Compare(e.base, other.base))
}

// comparePaths is strings.Compare with the slash before all other bytes.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// errLargeAnswers says that the answers to the caller have all the memory that he may have.
var errLargeAnswers = &failure{
	status: http.StatusTooManyRequests, retry: 1, code: "caller_overloaded", message: "Too many large answers to you are in flight. Nothing was done.",
}

// listing is a call of ls.
type listing struct {
	place
	options executor.ListOptions
	numeric bool
}

// listFiles is GET ops/ls.
func listFiles(c *call) error {
	query := c.query()
	l := listing{
		place: c.place(query, "path"), numeric: query.flag("numericUid", false),
		options: executor.ListOptions{
			Hidden: query.flag("showHidden", false), Recursive: query.flag("recursive", false), Follow: query.flag("dereference", false), Targets: true,
		},
	}
	if err := query.finish(); err != nil {
		return err
	}
	c.tree = l.options.Recursive
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		entries, err := c.entries(ctx, files, l)
		if err != nil {
			return fileFailure("ls: cannot access", l.name, err)
		}
		show, err := c.shower(ctx, files, entries, l.numeric)
		if err != nil {
			return err
		}
		return c.answerList(entries, show)
	})
}

// entries are those of a directory, or the one file that is none. As with ls -l, a
// link is followed only if the client asks for that, or writes a slash after it.
func (c *call) entries(ctx context.Context, files *executor.Files, l listing) ([]entry, error) {
	info, err := files.Stat(ctx, l.path, l.options.Follow)
	if errors.Is(err, executor.ErrNotFound) && l.options.Follow { // a link that leads nowhere is shown
		info, err = files.Stat(ctx, l.path, false)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		e, err := single(ctx, files, l.place, info)
		return []entry{e}, err
	}
	const (
		perLine  = 64  // bytes of a line of ls -l without its names
		perEntry = 128 // bytes of an entry without its names
	)
	var entries []entry
	room, memory := c.handler.cfg.MaxFile, c.output() //nolint:contextcheck // the memory is the request's
	err = files.List(ctx, l.path, l.options, func(i executor.FileInfo) error {
		if l.options.Follow && !i.IsLink() {
			i.Target = ""
		}
		names := int64(len(i.Name) + len(i.Target))
		if room -= perLine + names; room < 0 {
			return errOutputTooLarge
		}
		if !memory.Hold(perEntry + names) {
			return errLargeAnswers
		}
		entries = append(entries, entryOf(i))
		return nil
	})
	slices.SortFunc(entries, entry.compare)
	return entries, err
}

// single is a file that is shown for itself, under the name that the client gave.
func single(ctx context.Context, files *executor.Files, p place, info executor.FileInfo) (entry, error) {
	e := entryOf(info)
	e.dir, e.base = "", meant(p.name)
	if !info.IsLink() {
		return e, nil
	}
	var err error
	e.target, err = files.ReadLink(ctx, p.path)
	return e, err
}

// shower returns what makes views of entries.
func (c *call) shower(ctx context.Context, files *executor.Files, entries []entry, numeric bool) (func(entry) fileView, error) {
	var users, groups map[uint32]string
	if !numeric {
		var uids, gids []uint32
		for _, e := range entries {
			uids, gids = append(uids, e.uid), append(gids, e.gid)
		}
		var err error
		if users, groups, err = files.Names(ctx, distinct(uids), distinct(gids)); err != nil {
			return nil, err
		}
	}
	zone := c.zone(ctx, files)
	return func(e entry) fileView {
		v := fileView{
			Name: shown(e.dir + e.base), User: nameOf(users, e.uid), Group: nameOf(groups, e.gid), Size: strconv.FormatInt(e.size, 10),
			LastModified: time.Unix(e.modified, 0).In(zone).Format("2006-01-02T15:04:05"),
		}
		v.Type, v.Permissions = modeText(e.mode)
		if e.target != "" {
			v.LinkTarget = new(shown(e.target))
		}
		return v
	}, nil
}

func distinct(ids []uint32) []uint32 {
	slices.Sort(ids)
	return slices.Compact(ids)
}

func nameOf(names map[uint32]string, id uint32) string {
	if name := names[id]; name != "" {
		return name
	}
	return strconv.FormatUint(uint64(id), 10)
}

// answerList sends a list entry by entry: its text is never in memory as a whole.
func (c *call) answerList(entries []entry, show func(entry) fileView) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	const buffer = 32 << 10
	w := bufio.NewWriterSize(c.w, buffer)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_, _ = w.WriteString(`{"output":[`) // bufio keeps the first error for Flush
	for i, e := range entries {
		if i > 0 {
			_ = w.WriteByte(',')
		}
		if err := enc.Encode(show(e)); err != nil {
			return err
		}
	}
	_, _ = w.WriteString("]}\n")
	return w.Flush()
}

// describe answers with one file as it is now.
func (c *call) describe(ctx context.Context, files *executor.Files, status int, p place) error {
	info, err := files.Stat(ctx, p.path, false)
	if err != nil {
		return fileFailure("ls: cannot access", p.name, err)
	}
	e, err := single(ctx, files, p, info)
	if err != nil {
		return fileFailure("ls: cannot access", p.name, err)
	}
	show, err := c.shower(ctx, files, []entry{e}, false)
	if err != nil {
		return err
	}
	return c.answer(status, output[fileView]{show(e)})
}
