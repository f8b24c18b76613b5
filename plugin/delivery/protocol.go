package delivery

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	json "github.com/go-json-experiment/json/v1" // encoding/json as of Go 1.27, which decodes in half the time
)

// What nats-server's accounts.go and events.go answer to. The update subject
// with the account in it is served by every kind of resolver; the one without
// ($SYS.REQ.CLAIMS.UPDATE) only by those with a directory, so it is not used.
const (
	deleteSubject   = "$SYS.REQ.CLAIMS.DELETE"
	packSubject     = "$SYS.REQ.CLAIMS.PACK"
	pingSubject     = "$SYS.REQ.SERVER.PING"
	statszSubject   = "$SYS.SERVER.*.STATSZ"
	shutdownSubject = "$SYS.SERVER.*.SHUTDOWN"
)

func updateSubject(id string) string { return "$SYS.REQ.ACCOUNT." + id + ".CLAIMS.UPDATE" }

func lookupSubject(id string) string { return "$SYS.REQ.ACCOUNT." + id + ".CLAIMS.LOOKUP" }

// serverInfo is the part of nats-server's ServerInfo that is used. The ID is
// made at each start of a server; the name is the configured one, or the ID.
type serverInfo struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Version string `json:"ver"`

	// Time is the server's clock when it wrote this.
	Time time.Time `json:"time"`
}

// varzSubject is where one server answers with what it is (monitor.go, Varz).
func varzSubject(id string) string { return "$SYS.REQ.SERVER." + id + ".VARZ" }

// varz is the part of it that is used: the operators that the server trusts. There
// are none in the answer of one that was given their keys and not their JWTs.
type varz struct {
	Data struct {
		Operators []struct {
			Subject string `json:"sub"`
		} `json:"trusted_operators_claim"`
	} `json:"data"`
}

// claimsReply is the answer to an update and to a deletion.
type claimsReply struct {
	Server serverInfo `json:"server"`
	Data   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"data"`
	Error *struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	} `json:"error"`
}

// parseClaimsReply checks one server's answer. With an error the server is
// still returned if the answer names it.
func parseClaimsReply(data []byte) (claimsReply, error) {
	var reply claimsReply
	if err := json.Unmarshal(data, &reply); err != nil {
		return claimsReply{}, errors.New("an answer is not JSON as nats-server writes it")
	}
	switch {
	case reply.Server.ID == "":
		return reply, errors.New("an answer names no server")
	case reply.Error != nil:
		return reply, fmt.Errorf("server %s refuses: %s", reply.Server.Name, reply.Error.Description)
	case reply.Data == nil || reply.Data.Code != 200:
		return reply, fmt.Errorf("server %s answers neither success nor error", reply.Server.Name)
	}
	return reply, nil
}

// statsz is the part of a server's statistics that is used. ActiveServers
// counts the servers that the sender knows of, itself included.
type statsz struct {
	Server serverInfo `json:"server"`
	Stats  struct {
		ActiveServers int `json:"active_servers"`
	} `json:"statsz"`
}

// version names an account JWT: its jti, or its time of issue when it has none.
// It is empty for a text that is not a JWT.
func version(accountJWT string) string {
	parts := strings.Split(accountJWT, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	if claims.ID == "" && claims.IssuedAt != 0 {
		return strconv.FormatInt(claims.IssuedAt, 10)
	}
	return claims.ID
}
