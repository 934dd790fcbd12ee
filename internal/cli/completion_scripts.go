package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// bashScript completes in bash. Where nothing is known that could come, bash offers
// the names of files.
func bashScript(stops []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `# Completion of agentmarket for bash.
_agentmarket() {
    local at="" word words cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at $word" in
        %s) at="$at $word" ;;
        esac
    done
    # bash takes --flag=value for three words.
    [ "$cur" = "=" ] && cur=""
    [ "$prev" = "=" ] && prev="${COMP_WORDS[COMP_CWORD-2]}"
    case "$at $prev" in
`, quotedPaths(stops, " | "))
	for _, s := range stops {
		for _, flag := range slices.Sorted(maps.Keys(s.values)) {
			fmt.Fprintf(&out, "    %s) words=%s ;;\n", shellQuote(s.path+" "+flag), shellQuote(strings.Join(s.values[flag], " ")))
		}
	}
	out.WriteString("    *)\n        case \"$at\" in\n")
	for _, s := range stops {
		fmt.Fprintf(&out, "        %s) words=%s ;;\n", shellQuote(s.path), shellQuote(joinTexts(append(s.candidates, s.flags...)...)))
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

// zshScript completes in zsh, with what each word is for.
func zshScript(stops []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `#compdef agentmarket
# Completion of agentmarket for zsh.
_agentmarket() {
    local at="" word
    local -a next flags
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "$at $word" in
        %s) at="$at $word" ;;
        esac
    done
    case "$at ${words[CURRENT-1]}" in
`, quotedPaths(stops, "|"))
	for _, s := range stops {
		for _, flag := range slices.Sorted(maps.Keys(s.values)) {
			if values := s.values[flag]; len(values) > 0 {
				fmt.Fprintf(&out, "    %s) compadd -- %s; return ;;\n", shellQuote(s.path+" "+flag), strings.Join(values, " "))
			} else {
				fmt.Fprintf(&out, "    %s) _files; return ;;\n", shellQuote(s.path+" "+flag))
			}
		}
	}
	out.WriteString("    esac\n    case \"$at\" in\n")
	for _, s := range stops {
		fmt.Fprintf(&out, "    %s)\n        next=(%s)\n        flags=(%s)\n        ;;\n", shellQuote(s.path), zshDescriptions(s.candidates), zshDescriptions(s.flags))
	}
	out.WriteString(`    esac
    (( $#next )) && _describe command next
    _describe -o flag flags
}
if [ "${funcstack[1]}" = _agentmarket ]; then _agentmarket; else compdef _agentmarket agentmarket; fi
`)
	return out.String()
}

// zshDescriptions are words as _describe takes them: with what they are for after a colon.
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

// fishScript completes in fish.
func fishScript(stops []completionNode) string {
	var out strings.Builder
	fmt.Fprintf(&out, `# Completion of agentmarket for fish.
function __agentmarket_at
    set -l at ""
    for word in (commandline -opc)[2..-1]
        contains -- "$at $word" %s; and set at "$at $word"
    end
    test "$at" = "$argv[1]"
end
`, quotedPaths(stops, " "))
	for _, s := range stops {
		begin := "complete -c agentmarket -n " + shellQuote(`__agentmarket_at "`+s.path+`"`)
		for _, w := range s.candidates {
			fmt.Fprintf(&out, "%s -f -a %s -d %s\n", begin, w.text, shellQuote(w.help))
		}
		for _, flag := range s.flags {
			fmt.Fprintf(&out, "%s -l %s -d %s", begin, strings.TrimPrefix(flag.text, "--"), shellQuote(flag.help))
			if values, takes := s.values[flag.text]; takes && len(values) > 0 {
				fmt.Fprintf(&out, " -x -a %s", shellQuote(strings.Join(values, " ")))
			} else if takes {
				out.WriteString(" -r")
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}
