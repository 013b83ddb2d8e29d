"""A tool's argument vector: the administrator's part, then the author's, each element as it was written. Pure.

`command` + `defaultArgs` + the preset's arguments + the author's `args`. No shell ever sees it. Only the first three,
the administrator's, may hold placeholders, which the supervisor fills in; the author's braces are doubled, so that they
stay braces. The author's part is checked against `allowedArgs`: without that list anything is allowed, since
configurations written for other systems have none; with an empty one, nothing.
"""

import re
from string import Formatter

from toe_async.apis.powertool import Tool
from toe_async.apis.powertoolconfig import ArgumentRule, PowerToolConfigSpec
from toe_async.apis.reasons import Reason
from toe_async.capture.patterns import Effort, TooMuch, pattern
from toe_async.capture.refusals import Refused
from toe_async.lib.durations import parse_duration
from toe_async.lib.quantities import parse_quantity

DEFAULT_COMMAND = ("/opt/toe/tool",)
"""What a tool image's own program is called when the configuration names no command."""
PLACEHOLDERS = frozenset({"target_pid", "target_root", "output", "duration"})
LONGEST_ARGUMENT = 4096
LONGEST_FOR_PATTERN = 1024
_MOST_STEPS = 1_000_000
_SHOWN = 60
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,9})?|\.[0-9]{1,9})")
_WORD = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


def render(tool: PowerToolConfigSpec, wanted: Tool) -> tuple[str, ...] | Refused:
    """The argument vector with placeholders, or why it cannot be."""
    preset: tuple[str, ...] = ()
    if wanted.resolution_preset is not None:
        found = next((one for one in tool.presets if one.name == wanted.resolution_preset), None)
        if found is None:
            known = ", ".join(one.name for one in tool.presets) or "none"
            return _invalid(f"tool {tool.name} has no preset {wanted.resolution_preset}; it has: {known}")
        preset = found.args
    if (fault := argument_fault(tool.allowed_args, wanted.args)) is not None:
        return _invalid(f"tool {tool.name} {fault}")
    own = tuple(one.replace("{", "{{").replace("}", "}}") for one in wanted.args)
    return (*(tool.command or DEFAULT_COMMAND), *tool.default_args, *preset, *own)


def argument_fault(rules: tuple[ArgumentRule, ...] | None, args: tuple[str, ...]) -> str | None:
    """Return why the author's arguments are not taken, or None. The sentence goes on from the tool's name."""
    for one in args:
        if "\0" in one or len(one) > LONGEST_ARGUMENT:
            return f"takes no argument with a NUL character or of more than {LONGEST_ARGUMENT} characters"
    try:
        return _unfit(rules, args, Effort(_MOST_STEPS)) if rules is not None else None
    except TooMuch:
        return "takes more steps than it may to hold these arguments to its patterns; give fewer or shorter ones"


def _unfit(rules: tuple[ArgumentRule, ...], args: tuple[str, ...], effort: Effort) -> str | None:
    flags = {rule.flag: rule for rule in rules if rule.flag}
    plain = [rule for rule in rules if not rule.flag]
    at = 0
    while at < len(args):
        word = args[at]
        at += 1
        flag, has_value, value = word.partition("=")
        rule = flags.get(word)
        if rule is not None and _takes_value(rule):
            if at == len(args):
                return f"needs a value behind {word}"
            if not _fits(rule, args[at], effort):
                return f"does not take {args[at][:_SHOWN]!r} behind {word}: {_expected(rule)}"
            at += 1
        elif rule is None and has_value and flag in flags and _takes_value(flags[flag]):
            if not _fits(flags[flag], value, effort):
                return f"does not take {value[:_SHOWN]!r} for {flag}: {_expected(flags[flag])}"
        elif rule is None and not any(_fits_plain(each, word, effort) for each in plain):
            return f"does not allow the argument {word[:_SHOWN]!r}; its configuration allows {_allowed(rules)}"
    return None


def placeholder_fault(word: str) -> str | None:
    """Return what is wrong with an administrator's argument as a template, or None."""
    try:
        parts = list(Formatter().parse(word))
    except ValueError as error:
        return f"{word[:_SHOWN]!r} is no template ({error}); a brace is written twice"
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            known = ", ".join(sorted(f"{{{each}}}" for each in PLACEHOLDERS))
            return f"{word[:_SHOWN]!r} holds an unknown placeholder; known are {known}; a brace is written twice"
    return None


def rule_fault(rule: ArgumentRule) -> str | None:
    """Return what is wrong with a rule, or None."""
    name = rule.flag or rule.pattern or rule.type or "an empty rule"
    if rule.pattern and rule.type is not None:
        return f"{name}: give pattern or type, not both"
    if not rule.flag and not _takes_value(rule):
        return f"{name}: a rule without flag needs pattern or type"
    if rule.pattern:
        try:
            pattern(rule.pattern)
        except ValueError as error:
            return f"pattern {rule.pattern[:_SHOWN]!r} is no regular expression: {error}"
    if rule.type == "enum" and not rule.values:
        return f"{name}: type enum needs values"
    for bound in (rule.minimum, rule.maximum):
        if bound and (rule.type is None or _amount(rule.type, bound) is None):
            return f"{name}: the bound {bound[:_SHOWN]!r} does not go with type {rule.type}"
    return None


def _takes_value(rule: ArgumentRule) -> bool:
    return bool(rule.pattern) or rule.type is not None


def _fits(rule: ArgumentRule, value: str, effort: Effort) -> bool:
    if rule.pattern:
        return len(value) <= LONGEST_FOR_PATTERN and pattern(rule.pattern).fits(value, effort)
    match rule.type:
        case "boolean":
            return value in {"true", "false"}
        case "enum":
            return value in rule.values
        case "string":
            return _WORD.fullmatch(value) is not None and not value.startswith("-")
        case None:
            return False
        case kind:
            amount = _amount(kind, value)
            if amount is None:
                return False
            least, most = (_amount(kind, bound) if bound else None for bound in (rule.minimum, rule.maximum))
            return (least is None or amount >= least) and (most is None or amount <= most)


def _fits_plain(rule: ArgumentRule, word: str, effort: Effort) -> bool:
    # A pattern that is wide for words must not let options in: those are only what begins with a dash in the rule too.
    if word.startswith("-") and not (rule.pattern.lstrip("^(?:").startswith(("-", r"\-")) or _is_number(rule)):
        return False
    return _fits(rule, word, effort)


def _is_number(rule: ArgumentRule) -> bool:
    return rule.type in {"integer", "number"}


def _amount(kind: str, text: str) -> float | None:
    if kind == "integer":
        return float(text) if _INTEGER.fullmatch(text) else None
    if kind == "number":
        return float(text) if _NUMBER.fullmatch(text) else None
    try:
        if kind == "duration":
            return parse_duration(text).total_seconds()
        if kind == "quantity":
            return float(parse_quantity(text))
    except ValueError:
        return None
    return None


def _expected(rule: ArgumentRule) -> str:
    if rule.pattern:
        return f"it must match {rule.pattern[:120]}"
    bounds = "".join(f" {word} {bound}" for word, bound in (("from", rule.minimum), ("to", rule.maximum)) if bound)
    return f"it must be one of {', '.join(rule.values)}" if rule.type == "enum" else f"it must be a {rule.type}{bounds}"


def _allowed(rules: tuple[ArgumentRule, ...]) -> str:
    shown = [(rule.flag or rule.pattern or rule.type or "")[:40] for rule in rules[:12]]
    return (", ".join(shown) + (" ..." if len(rules) > 12 else "")) or "none"


def _invalid(message: str) -> Refused:
    return Refused(Reason.INVALID_SPEC, message)
