package httpapi

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// negotiate picks what the client likes best among offers, which are in the
// server's order of preference (RFC 9110 §12.5.1). No Accept header means
// anything; an element that cannot be parsed counts for nothing.
func negotiate(r *http.Request, offers ...string) (string, error) {
	values := r.Header.Values("Accept")
	if len(values) == 0 {
		return offers[0], nil
	}
	ranges := parseAccept(strings.Join(values, ","))
	best, bestQuality := "", 0.0
	for _, offer := range offers {
		if q := quality(ranges, offer); q > bestQuality {
			best, bestQuality = offer, q
		}
	}
	if best == "" {
		return "", &requestError{err: errNotAcceptable, field: "Accept", allowed: offers}
	}
	return best, nil
}

// A mediaRange is one element of an Accept header.
type mediaRange struct {
	media   string
	quality float64
}

func parseAccept(header string) []mediaRange {
	var ranges []mediaRange
	for element := range strings.SplitSeq(header, ",") {
		media, params, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		ranges = append(ranges, mediaRange{media, q})
	}
	return ranges
}

// quality is that of the most specific range that covers offer, or 0.
func quality(ranges []mediaRange, offer string) float64 {
	kind, _, _ := strings.Cut(offer, "/")
	for _, want := range []string{offer, kind + "/*", "*/*"} {
		for _, r := range ranges {
			if r.media == want {
				return r.quality
			}
		}
	}
	return 0
}
