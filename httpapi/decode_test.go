package httpapi

import (
	"errors"
	"testing"
)

func TestAMalformedBodyIsToldWhere(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"":                 "The body is empty; it must be a JSON object.",
		" \n":              "The body is empty; it must be a JSON object.",
		`[]`:               "The body is JSON, but no object.",
		`"command"`:        "The body is JSON, but no object.",
		`{'command': 'x'}`: "The body is no JSON from byte 2 on.",
		`{"command":"id"`:  "The body ends within the JSON object, after 15 bytes.",
		`{"command":`:      "The body ends within the JSON object, after 11 bytes.",
		`{"command" "id"}`: "The body is no JSON from byte 12 on.",
		`{"command":id}`:   "The body is no JSON from byte 12 on.",
		`{} {}`:            "Something follows the JSON object.",
	} {
		_, err := parseObject([]byte(body))
		refused, ok := errors.AsType[*requestError](err)
		if !ok || !errors.Is(err, errBodyMalformed) || refused.detail != want {
			t.Errorf("%q: got %v, want %q", body, err, want)
			if ok {
				t.Log(refused.detail)
			}
		}
	}
}
