package standin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Okta stands in for an organization at Okta, as far as listing somebody's groups
// goes: https://developer.okta.com/docs/api/openapi/okta-management/management/tag/UserResources.
type Okta struct {
	// Token is the API token that it takes, of Owner.
	Token, Owner string
	// Groups are the names of the groups that users are in, by their id or login.
	Groups map[string][]string
	// Page is how many groups it lists at one time at most. Zero: 200.
	Page int
}

func (o *Okta) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "SSWS "+o.Token {
		oktaError(w, http.StatusUnauthorized, "E0000011", "Invalid token provided")
		return
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/api/v1/users/")
	escaped, ok2 := strings.CutSuffix(path, "/groups")
	user, err := url.PathUnescape(escaped)
	if !ok || !ok2 || err != nil || strings.Contains(escaped, "/") || r.Method != http.MethodGet {
		oktaError(w, http.StatusNotFound, "E0000022", "The endpoint does not support the provided HTTP method")
		return
	}
	if user == "me" {
		user = o.Owner
	}
	groups, known := o.Groups[user]
	if !known {
		oktaError(w, http.StatusNotFound, "E0000007", fmt.Sprintf("Not found: Resource not found: %s (User)", user))
		return
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	after, _ := strconv.Atoi(r.URL.Query().Get("after"))
	if most := max(o.Page, 1); limit == 0 || o.Page > 0 && limit > most {
		limit = most
	}
	base := "https://" + r.Host + r.URL.EscapedPath()
	w.Header().Add("Link", fmt.Sprintf("<%s?limit=%d>; rel=\"self\"", base, limit))
	list := []object{}
	for i := after; i < len(groups) && i < after+limit; i++ {
		list = append(list, object{
			"id":          fmt.Sprintf("00g%017d", i),
			"objectClass": []string{"okta:user_group"},
			"type":        "OKTA_GROUP",
			"profile":     object{"name": groups[i], "description": nil},
			"_links":      object{"users": object{"href": "https://" + r.Host + "/api/v1/groups/x/users"}},
		})
	}
	if after+limit < len(groups) {
		w.Header().Add("Link", fmt.Sprintf("<%s?after=%d&limit=%d>; rel=\"next\"", base, after+limit, limit))
	}
	write(w, http.StatusOK, list)
}

func oktaError(w http.ResponseWriter, status int, code, summary string) {
	write(w, status, object{"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae1", "errorCauses": []any{}})
}
