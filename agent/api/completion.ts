// Completion scripts for bash, zsh and fish, from the table of verbs.
//
// INVARIANTS
// - Names of the host are offered only when they are plain words: shells expand what they are given to choose from.

import { commonFlags } from './arguments.ts'
import { shownVerbs } from './help.ts'
import type { Field } from './verbs.ts'

/** What of the host is offered, with the command that prints it, one a line. */
const askers = {
  drive: `garrison drives --json 2>/dev/null | grep -o '"serial":"[A-Za-z0-9._-]*"' | cut -d '"' -f 4`,
  vm: `garrison vm list --csv --columns name 2>/dev/null | tail -n +2 | grep -x '[A-Za-z0-9._-]*'`,
} as const

const single = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** What may stand at a place: words, drives, VMs, files, or nothing that can be told. */
type Offer = readonly string[] | keyof typeof askers | 'path' | null

const isAsked = (offer: Offer): offer is keyof typeof askers => typeof offer === 'string' && offer in askers

const offerOf = (field: Field): Offer => {
  if (field.kind === 'choice') return field.choices
  return field.kind === 'drive' || field.kind === 'path' || field.kind === 'vm' ? field.kind : null
}

/** A verb, or words that verbs begin with. The last of `places` stands for all that come after it when it `repeats`. */
interface Node {
  readonly name: string
  readonly brief: string
  readonly flags: readonly (readonly [string, Field])[]
  readonly places: readonly Offer[]
  readonly repeats: boolean
}

/** Every verb and every word that leads to one; the words of the verbs under it come first among its places. */
function nodes(): readonly Node[] {
  const verbs = shownVerbs()
  const names = new Set(
    verbs.flatMap(([name]) => name.split(' ').map((_, at, words) => words.slice(0, at + 1).join(' '))),
  )
  return [...names].map((name) => {
    const verb = verbs.find(([one]) => one === name)?.[1]
    const under = verbs.flatMap(([one]) =>
      one.startsWith(`${name} `) ? (one.slice(name.length + 1).split(' ')[0] ?? '') : [],
    )
    const operands = Object.values(verb?.operands ?? {})
    const words = [...new Set(under)]
    return {
      name,
      brief: verb?.brief ?? words.join(', '),
      flags: Object.entries({ ...verb?.flags, ...commonFlags }),
      places: [...(words.length > 0 ? [words] : []), ...operands.map(offerOf)],
      repeats: operands.some((field) => 'many' in field),
    }
  })
}

const topWords = (all: readonly Node[]): readonly Node[] => all.filter(({ name }) => !name.includes(' '))

/** Flags that are followed by a value, by every verb that has them. */
const valued = (all: readonly Node[]): readonly string[] => [
  ...new Set(
    all.flatMap(({ flags }) => flags.flatMap(([flag, { kind }]) => (kind === 'switch' ? [] : `--${flag}`))),
  ),
]

/** Shell patterns for names as a script builds them, each word after a blank. */
const pattern = (names: readonly string[]): string => names.map((name) => single(` ${name}`)).join('|')

function bash(): string {
  const all = nodes()
  const reply = (offer: Offer): string => {
    if (offer === 'path') return 'compgen -f'
    return `compgen -W ${isAsked(offer) ? `"$(${askers[offer]})"` : single((offer ?? []).join(' '))}`
  }
  const answer = (offer: Offer): string => `COMPREPLY=($(${reply(offer)} -- "$cur"))`
  const cases = all.map(({ name, flags, places, repeats }) =>
    [
      `    ${pattern([name])})`,
      `      if [[ $cur == -* ]]; then ${answer(flags.map(([flag]) => `--${flag}`))}; return; fi`,
      '      case $prev in',
      ...flags.flatMap(([flag, field]) =>
        field.kind === 'switch' ? [] : [`        --${flag}) ${answer(offerOf(field))}; return ;;`],
      ),
      '      esac',
      '      case $place in',
      ...places.map(
        (offer, at) => `        ${repeats && at === places.length - 1 ? '*' : at + 1}) ${answer(offer)} ;;`,
      ),
      '      esac',
      '      ;;',
    ].join('\n'),
  )
  const first = [...topWords(all).map(({ name }) => name), '--help', '--version']
  return `# bash completion of garrison; made from its table of verbs.
_garrison() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} verb= place=1 at
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    case \${COMP_WORDS[at]} in
    -*) continue ;;
    esac
    case \${COMP_WORDS[at - 1]} in
    ${valued(all).join('|')}) continue ;;
    esac
    case "$verb \${COMP_WORDS[at]}" in
    ${pattern(all.map(({ name }) => name))}) verb="$verb \${COMP_WORDS[at]}" place=1 ;;
    *) ((place++)) ;;
    esac
  done
  case $verb in
    '') ${answer(first)} ;;
${cases.join('\n')}
  esac
}
complete -F _garrison garrison
`
}

const zshText = (text: string): string =>
  text.replace(/[\\:[\]']/g, (special) => (special === "'" ? '’' : `\\${special}`))

function zsh(): string {
  const all = nodes()
  const action = (offer: Offer): string => {
    if (isAsked(offer)) return `_garrison_${offer}s`
    if (offer === 'path') return '_files'
    return offer === null ? '' : `(${offer.join(' ')})`
  }
  const flagSpec = ([name, field]: readonly [string, Field]): string => {
    const value = field.kind === 'switch' ? '' : `:${field.placeholder}:${action(offerOf(field))}`
    return `'${'many' in field ? '*' : ''}--${name}[${zshText(field.brief)}]${value}'`
  }
  const cases = all.map(({ name, flags, places, repeats }) => {
    const specs = [
      ...flags.map(flagSpec),
      ...places.map((offer, at) => {
        const place = repeats && at === places.length - 1 ? '*' : `${at + 1}:`
        return `'${place}:operand:${action(offer)}'`
      }),
    ]
    return `    ${pattern([name])}) _arguments \\\n      ${specs.join(' \\\n      ')} ;;`
  })
  return `#compdef garrison
# zsh completion of garrison; made from its table of verbs.
${Object.entries(askers)
  .map(([name, asking]) => `_garrison_${name}s() {\n  compadd -- \${(f)"$(${asking})"}\n}`)
  .join('\n')}
_garrison() {
  local -a verbs
  verbs=(
${topWords(all)
  .map(({ name, brief }) => `    '${name}:${zshText(brief)}'`)
  .join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe verb verbs
    return
  fi
  local verb= taken=0 at
  for ((at = 2; at < CURRENT; at++)); do
    case "$verb \${words[at]}" in
    ${pattern(all.map(({ name }) => name))}) verb="$verb \${words[at]}" taken=$at ;;
    *) break ;;
    esac
  done
  ((taken)) || return
  shift $((taken - 1)) words
  ((CURRENT -= taken - 1))
  case $verb in
${cases.join('\n')}
  esac
}
_garrison "$@"
`
}

const fishText = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

function fish(): string {
  const all = nodes()
  const value = (field: Field): string => {
    const offer = offerOf(field)
    if (field.kind === 'switch') return ''
    if (offer === 'path') return ' -r -F'
    if (isAsked(offer)) return ` -x -a '(__garrison_${offer}s)'`
    return offer === null ? ' -x' : ` -x -a ${fishText(offer.join(' '))}`
  }
  const lines = all.flatMap(({ name, flags, places, repeats }) => [
    ...places.flatMap((offer, at) => {
      const last = repeats && at === places.length - 1
      const here = `-n '__garrison_at "${name}" ${at + 1}${last ? ' on' : ''}'`
      if (offer === null) return []
      if (offer === 'path') return `complete -c garrison ${here} -F`
      const list = isAsked(offer) ? `'(__garrison_${offer}s)'` : fishText(offer.join(' '))
      return `complete -c garrison ${here} -a ${list}`
    }),
    ...flags.map(
      ([flag, field]) =>
        `complete -c garrison -n '__garrison_at "${name}"' -l ${flag}${value(field)} -d ${fishText(field.brief)}`,
    ),
  ])
  return `# fish completion of garrison; made from its table of verbs.
${Object.entries(askers)
  .map(([name, asking]) => `function __garrison_${name}s\n  ${asking}\nend`)
  .join('\n')}
function __garrison_at
  set -l verb
  set -l place 1
  set -l before
  for word in (commandline -opc)[2..-1]
    set -l last $before
    set before $word
    string match -q -- '-*' $word; and continue
    contains -- "$last" ${valued(all).join(' ')}; and continue
    if contains -- (string join ' ' $verb $word) ${all.map(({ name }) => fishText(name)).join(' ')}
      set -a verb $word
      set place 1
    else
      set place (math $place + 1)
    end
  end
  test "$verb" = "$argv[1]"; or return 1
  test (count $argv) -eq 1; or test $place -eq $argv[2]; or begin
    test (count $argv) -eq 3; and test $place -gt $argv[2]
  end
end
complete -c garrison -f
${topWords(all)
  .map(({ name, brief }) => `complete -c garrison -n __fish_use_subcommand -a ${name} -d ${fishText(brief)}`)
  .join('\n')}
${lines.join('\n')}
`
}

/** The completion script of a shell. Drives and VMs are asked of \`garrison\` while completing. */
export const completionScript = (shell: 'bash' | 'zsh' | 'fish'): string => ({ bash, zsh, fish })[shell]()
