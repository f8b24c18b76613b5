package roles

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// expressionCost bounds the work of one evaluation, in CEL's units: about a
// thousand times what a usual expression takes, and some milliseconds.
const expressionCost = 100_000

// expressionSize bounds the length of an expression, in characters.
const expressionSize = 16 << 10

// An expression is a compiled bound_expression.
type expression struct {
	program cel.Program
}

// expressionEnv declares what an expression may use.
var expressionEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("issuer", cel.StringType),
		cel.Variable("groups", cel.ListType(cel.StringType)),
		cel.Variable("now", cel.TimestampType),
		cel.ParserExpressionSizeLimit(expressionSize),
	)
})

// compileExpression compiles the bound_expression, if there is one. Its errors
// say where in the expression the fault is.
func (c *Compiled) compileExpression() error {
	if c.role.BoundExpression == "" {
		return nil
	}
	env, err := expressionEnv()
	if err != nil {
		return err
	}
	ast, issues := env.Compile(c.role.BoundExpression)
	if issues.Err() != nil {
		return badField("bound_expression", "is not a CEL expression: %s", placed(issues))
	}
	if ast.OutputType() != cel.BoolType {
		return badField("bound_expression", "gives %s: it must be true or false; compare a claim with == true if it is a boolean", ast.OutputType())
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(expressionCost))
	if err != nil { // such as a regular expression that is none
		return badField("bound_expression", "cannot be evaluated: %s", err)
	}
	c.expression = &expression{program}
	return nil
}

// placed lists the faults of an expression, each with its line and column.
func placed(issues *cel.Issues) string {
	var faults []string
	for _, e := range issues.Errors() {
		faults = append(faults, fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
	}
	return strings.Join(faults, "; ")
}

// holds evaluates the expression. It says why an identity is refused, or nothing
// if it is not: the expression is false, or could not be evaluated, as with a
// claim that the token does not have.
func (e *expression) holds(claims map[string]any, issuer string, groups []string, now time.Time) error {
	if groups == nil {
		groups = []string{}
	}
	result, _, err := e.program.Eval(map[string]any{
		"claims": claims,
		"issuer": issuer,
		"groups": groups,
		"now":    now,
	})
	if err != nil {
		return fmt.Errorf("the role's bound_expression could not be evaluated: %w", err)
	}
	if result != types.True {
		return errors.New("the role's bound_expression does not hold")
	}
	return nil
}
