package plugin

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"google.golang.org/grpc"
)

// unauthenticated lists the paths that need no Vault token.
var unauthenticated = []string{
	loginPattern[:len(loginPattern)-1],
	authURLPattern[:len(authURLPattern)-1], callbackPattern[:len(callbackPattern)-1], pollPattern[:len(pollPattern)-1],
	"jwt/v1/accounts/*", "jwt/v1/operator",
}

// mostUnauthenticated is how many bytes of fields a caller without a Vault token
// may send: a login's token takes a few thousand.
const mostUnauthenticated = 256 << 10

// needsNoToken reports whether anyone may send requests to a path.
func needsNoToken(path string) bool {
	for _, pattern := range unauthenticated {
		prefix, below := strings.CutSuffix(pattern, "*")
		if path == pattern || below && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// boundRequests refuses what callers without a Vault token send too much of. It
// sees a request before its fields are made Go values, which can take a hundred
// times their size. For the same reason it says itself that what a workload or a
// responder asks for is nothing that exists, which Vault asks before each such request.
func boundRequests(ctx context.Context, call any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch args := call.(type) {
	case *pb.HandleRequestArgs:
		if text := tooLarge(args.Request); text != "" {
			resp, err := pb.LogicalResponseToProtoResponse(logical.ErrorResponse(text))
			return &pb.HandleRequestReply{Response: resp}, err
		}
	case *pb.HandleExistenceCheckArgs:
		if text := tooLarge(args.Request); text != "" {
			return &pb.HandleExistenceCheckReply{Err: pb.ErrToProtoErr(logical.CodedError(http.StatusBadRequest, text))}, nil
		}
		if isNoObject(args.Request) {
			return &pb.HandleExistenceCheckReply{}, nil
		}
	}
	return handler(ctx, call)
}

// isNoObject reports whether a path is one of those that are asked often and name nothing
// that is created or updated. Vault takes their writes for updates, as it does where a
// path has no check.
func isNoObject(req *pb.Request) bool {
	if req == nil {
		return false
	}
	below, isCallout := strings.CutPrefix(req.Path, "callout/")
	return req.Path == "login" || isCallout && strings.HasSuffix(below, "/authorize")
}

// tooLarge says why a request is refused, nothing if it is not.
func tooLarge(req *pb.Request) string {
	if req == nil || len(req.Data) <= mostUnauthenticated || !needsNoToken(req.Path) {
		return ""
	}
	return fmt.Sprintf("the request has %d bytes of fields: at most %d are taken without a Vault token", len(req.Data), mostUnauthenticated)
}
