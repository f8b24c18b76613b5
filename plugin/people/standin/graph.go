package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Graph stands in for Microsoft Graph, as far as its action getMemberObjects goes:
// https://learn.microsoft.com/graph/api/directoryobject-getmemberobjects.
type Graph struct {
	// Who is the id of the one whom an access token is of, and whether it is a good
	// one. A token of an application is of nobody, and may ask for everybody.
	Who func(accessToken string) (id string, good bool)
	// Groups are the ids of the groups that people are in.
	Groups map[string][]string
	// Page is how many groups an answer has. Zero: all.
	Page int
}

func (g *Graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	self, good := g.Who(token)
	if !ok || !good {
		graphError(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience.")
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1.0/"), "/")
	if i := slices.Index(parts, "users"); i == 1 { // below a tenant
		parts = parts[1:]
	}
	var id string
	switch {
	case len(parts) == 2 && parts[0] == "me" && strings.EqualFold(parts[1], "getMemberObjects"):
		if id = self; id == "" {
			graphError(w, http.StatusBadRequest, "BadRequest", "/me request is only valid with delegated authentication flow.")
			return
		}
	case len(parts) == 3 && parts[0] == "users" && strings.EqualFold(parts[2], "getMemberObjects"):
		id = parts[1]
	default:
		graphError(w, http.StatusBadRequest, "BadRequest", "Resource not found for the segment.")
		return
	}
	if self != "" && self != id {
		graphError(w, http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
		return
	}
	g.list(w, r, id)
}

func (g *Graph) list(w http.ResponseWriter, r *http.Request, id string) {
	skip := 0
	switch token := r.URL.Query().Get("$skiptoken"); {
	case r.Method == http.MethodGet && token != "":
		skip, _ = strconv.Atoi(token)
	case r.Method == http.MethodPost:
		var action struct {
			SecurityEnabledOnly *bool `json:"securityEnabledOnly"`
		}
		if json.NewDecoder(r.Body).Decode(&action) != nil || action.SecurityEnabledOnly == nil || r.Header.Get("Content-Type") != "application/json" {
			graphError(w, http.StatusBadRequest, "BadRequest", "Unable to read JSON request payload.")
			return
		}
	default:
		graphError(w, http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
		return
	}
	groups, known := g.Groups[id]
	if !known {
		graphError(w, http.StatusNotFound, "Request_ResourceNotFound", fmt.Sprintf("Resource '%s' does not exist.", id))
		return
	}
	answer := object{"@odata.context": "https://" + r.Host + "/v1.0/$metadata#Collection(Edm.String)", "value": groups[skip:]}
	if g.Page > 0 && len(groups)-skip > g.Page {
		answer["value"] = groups[skip : skip+g.Page]
		answer["@odata.nextLink"] = fmt.Sprintf("https://%s%s?$skiptoken=%d", r.Host, r.URL.Path, skip+g.Page)
	}
	write(w, http.StatusOK, answer)
}

func graphError(w http.ResponseWriter, status int, code, message string) {
	write(w, status, object{"error": object{"code": code, "message": message, "innerError": object{"date": "2026-11-27T19:00:00"}}})
}
