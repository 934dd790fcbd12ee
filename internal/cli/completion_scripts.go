package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// bashScript returns the completion script for bash. Where the script knows no
// words, bash completes file names.
func bashScript(nodes []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `# Completion of agentmarket for bash.
_agentmarket() {
    local cmdpath="" word words cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$cmdpath $word" in
        %s) cmdpath="$cmdpath $word" ;;
        esac
    done
    # bash splits --flag=value into three words.
    [ "$cur" = "=" ] && cur=""
    [ "$prev" = "=" ] && prev="${COMP_WORDS[COMP_CWORD-2]}"
    case "$cmdpath $prev" in
`, quotedPaths(nodes, " | "))
	for _, n := range nodes {
		for _, flag := range slices.Sorted(maps.Keys(n.values)) {
			fmt.Fprintf(&out, "    %s) words=%s ;;\n", shellQuote(n.path+" "+flag), shellQuote(strings.Join(n.values[flag], " ")))
		}
	}
	out.WriteString("    *)\n        case \"$cmdpath\" in\n")
	for _, n := range nodes {
		fmt.Fprintf(&out, "        %s) words=%s ;;\n", shellQuote(n.path), shellQuote(joinTexts(append(n.candidates, n.flags...)...)))
	}
	out.WriteString(`        esac
        ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _agentmarket agentmarket
`)
	return out.String()
}

// zshScript returns the completion script for zsh. It shows a description with
// each word.
func zshScript(nodes []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `#compdef agentmarket
# Completion of agentmarket for zsh.
_agentmarket() {
    local cmdpath="" word
    local -a next flags
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "$cmdpath $word" in
        %s) cmdpath="$cmdpath $word" ;;
        esac
    done
    case "$cmdpath ${words[CURRENT-1]}" in
`, quotedPaths(nodes, "|"))
	for _, n := range nodes {
		for _, flag := range slices.Sorted(maps.Keys(n.values)) {
			if values := n.values[flag]; len(values) > 0 {
				fmt.Fprintf(&out, "    %s) compadd -- %s; return ;;\n", shellQuote(n.path+" "+flag), strings.Join(values, " "))
			} else {
				fmt.Fprintf(&out, "    %s) _files; return ;;\n", shellQuote(n.path+" "+flag))
			}
		}
	}
	out.WriteString("    esac\n    case \"$cmdpath\" in\n")
	for _, n := range nodes {
		fmt.Fprintf(&out, "    %s)\n        next=(%s)\n        flags=(%s)\n        ;;\n", shellQuote(n.path), zshDescriptions(n.candidates), zshDescriptions(n.flags))
	}
	out.WriteString(`    esac
    (( $#next )) && _describe command next
    _describe -o flag flags
}
if [ "${funcstack[1]}" = _agentmarket ]; then _agentmarket; else compdef _agentmarket agentmarket; fi
`)
	return out.String()
}

// zshDescriptions formats words for zsh's _describe, as word:description.
func zshDescriptions(words []candidate) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = shellQuote(w.text)
		if w.help != "" {
			all[i] = shellQuote(w.text + ":" + w.help)
		}
	}
	return strings.Join(all, " ")
}

// fishScript returns the completion script for fish.
func fishScript(nodes []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `# Completion of agentmarket for fish.
function __agentmarket_path
    set -l cmdpath ""
    for word in (commandline -opc)[2..-1]
        contains -- "$cmdpath $word" %s; and set cmdpath "$cmdpath $word"
    end
    test "$cmdpath" = "$argv[1]"
end
`, quotedPaths(nodes, " "))
	for _, n := range nodes {
		prefix := "complete -c agentmarket -n " + shellQuote(`__agentmarket_path "`+n.path+`"`)
		for _, w := range n.candidates {
			fmt.Fprintf(&out, "%s -f -a %s -d %s\n", prefix, w.text, shellQuote(w.help))
		}
		for _, flag := range n.flags {
			fmt.Fprintf(&out, "%s -l %s -d %s", prefix, strings.TrimPrefix(flag.text, "--"), shellQuote(flag.help))
			if values, takesValue := n.values[flag.text]; takesValue && len(values) > 0 {
				fmt.Fprintf(&out, " -x -a %s", shellQuote(strings.Join(values, " ")))
			} else if takesValue {
				out.WriteString(" -r")
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}
