package firecrest

import (
	"path"
	"strconv"
	"strings"

	"sallyport/httpapi/firecrest/s3"
)

// The jobs of transfers through storage. They need curl, dd and the like on the node
// that runs them, and reach the storage from there. The addresses are in a file of the
// caller's, of mode 0600, which they remove; curl reads them from there, so that they
// stand on no command line.

// stagedHead begins both scripts. Names in capitals are replaced by words that are quoted.
const stagedHead = `#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
cr=$(printf '\r')
secrets=SECRETS file=FILE part=PART size=SIZE parts=PARTS partsize=PARTSIZE
echo "$(date -u) TITLE Job (id:${SLURM_JOB_ID:-$PBS_JOBID})"
trap 'rm -f -- "$secrets" "$secrets.one" "$secrets.out" "$part"' EXIT
trap 'exit 143' TERM INT HUP
fail() {
	printf 'Unable to VERB file exit code:%s error: %s\n' "$1" "$2" >&2
	exit "$1"
}
real() { [ "$(realpath -m -- "$1"; echo .)" = "$1
." ] || fail 1 'the path has changed since the job was submitted'; }
[ -r "$secrets" ] || fail 1 'the addresses of the storage are missing'
`

// ingressBody waits for the object, up to a day, and puts it in the place of the file when
// it is whole. A download that broke off is continued.
const ingressBody = `real "${part%/*}"
[ ! -d "$file" ] || fail 3 'the target is a directory'
pause=1 waited=0
until code=$(curl --silent --globoff --fail --continue-at - --config "$secrets" --output "$part" --write-out '%{http_code}'); do
	case $code in
	400 | 401 | 405 | 411 | 416) fail 1 "the storage answers $code" ;;
	esac
	[ "$waited" -lt 86400 ] || fail 124 'the file was not uploaded within a day'
	sleep "$pause"
	waited=$((waited + pause))
	[ "$pause" -ge 60 ] || pause=$((pause * 2))
done
[ -e "$part" ] || : >"$part" # curl makes none for an empty object
got=$(wc -c <"$part")
[ "$got" -eq "$size" ] || fail 1 "the file has $got bytes and not $size"
sync -- "$part" 2>/dev/null
real "${part%/*}"
error=$(mv -fT -- "$part" "$file" 2>&1) || fail 1 "$error"
echo "File was successfully downloaded (size: $((size / 1048576))MB)"
`

// egressBody sends the file part by part, each up to five times, and has the storage put
// them together. The file is opened once, and then asked where it is.
const egressBody = `exec 4<"$file" || fail 1 'the file cannot be read'
[ "$(readlink -- /proc/self/fd/4; echo .)" = "$file
." ] || fail 1 'the path has changed since the job was submitted'
list='<CompleteMultipartUpload>' n=0
while [ "$n" -lt "$parts" ]; do
	skip=$((n * partsize))
	length=$((size - skip))
	[ "$length" -le "$partsize" ] || length=$partsize
	n=$((n + 1))
	(umask 077 && sed -n "${n}p" -- "$secrets" >"$secrets.one") || fail 1 'the address of a part cannot be written'
	attempt=1
	until etag=$(dd if=/proc/self/fd/4 bs=1M iflag=skip_bytes,count_bytes skip="$skip" count="$length" status=none |
		curl --silent --globoff --fail --request PUT --header "Content-Length: $length" --header 'Transfer-Encoding:' --header 'Expect:' \
			--upload-file - --config "$secrets.one" --dump-header - --output /dev/null | tr -d '\r' | sed -n 's/^[Ee][Tt][Aa][Gg]: *//p') && [ -n "$etag" ]; do
		[ "$attempt" -lt 5 ] || fail 1 "part $n of $parts was not taken by the storage"
		sleep $((attempt * attempt))
		attempt=$((attempt + 1))
	done
	list="$list<Part><PartNumber>$n</PartNumber><ETag>$etag</ETag></Part>"
done
(umask 077 && sed -n "$((parts + 1))p" -- "$secrets" >"$secrets.one") || fail 1 'the last address cannot be written'
printf '%s</CompleteMultipartUpload>' "$list" |
	curl --silent --globoff --fail --request POST --data-binary @- --config "$secrets.one" >"$secrets.out" || fail 1 'the storage did not put the parts together'
grep -q '<CompleteMultipartUploadResult' "$secrets.out" || fail 1 'the storage did not put the parts together'
echo 'Multipart file upload successfully completed'
`

// ingress is the job that fetches an object.
func ingress(s staged) (transfer, error) {
	part := path.Dir(strings.TrimSuffix(s.path, "/")) + "/.f7t_transfer_" + s.id + ".part"
	text, err := s.script(stagedHead+ingressBody, "Ingress File Transfer", "download", part, s3.Object{})
	return transfer{name: "IngressFileTransfer", text: text}, err
}

// egress is the job that sends a file.
func egress(s staged, o s3.Object) (transfer, error) {
	text, err := s.script(stagedHead+egressBody, "Outgress File Transfer", "upload", s.secrets()+".part", o)
	return transfer{name: "OutgressFileTransfer", text: text}, err
}

func (s staged) script(text, title, verb, part string, o s3.Object) (string, error) {
	words := map[string]string{"SECRETS": s.secrets(), "FILE": s.path, "PART": part}
	for name, word := range words {
		q, err := quoted(word)
		if err != nil {
			return "", err
		}
		words[name] = q
	}
	return strings.NewReplacer(
		"=SECRETS", "="+words["SECRETS"], "=FILE", "="+words["FILE"], "part=PART ", "part="+words["PART"]+" ",
		"=SIZE", "="+strconv.FormatInt(s.size, 10), "=PARTSIZE", "="+strconv.FormatInt(o.PartSize, 10), "=PARTS ", "="+strconv.Itoa(len(o.PutURLs))+" ",
		"TITLE", title, "VERB", verb,
	).Replace(text), nil
}
