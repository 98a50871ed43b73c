"""Check that prose in the repository is plain American English, and print each finding as `file:line: message`.

Usage: `python3 .ci/check_english.py [path ...]`, by default the current folder. A folder stands for its tracked and
new files. The exit status is 1 if there is a finding. Inline code, fenced blocks and addresses are not checked.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Generated with a model, a record of a past release or schema, or a list of what is forbidden.
EXEMPT = ("models/", "service/store/migrations/versions/", ".ci/check_english.py", "tests/test_english.py")
SUFFIXES = (".py", ".md", ".toml")
RELEASED = re.compile(r"^## \[?v?\d", re.MULTILINE)  # in the changelog: all text from here on is history

# Phrases that would be findings, and are the standard ones where they stand.
ALLOWED = re.compile(
    r"hears? when a machine sounds off|(?:machine|deep|representation) learning|algorithmic learning"
    r"|(?:students?|networks?|models?|encoders?)\s+(?:has\s+|have\s+)?learn(?:s|ed)"
    r"|learned (?:\w+[ -]){0,2}(?:embeddings?|front.ends?|weights?|parameters?|layers?|projections?|features?"
    r"|representations?|positions?|tokens?|scales?|bias|vectors?)",
    re.IGNORECASE,
)
PHRASES = {
    r"h[au]ng(?:s|ing)?\s+on": "depend on",
    r"anew": "again",
    r"at\s+hand": "cached, loaded or available",
    r"by\s+lot": "at random",
    r"of\s+late": "recent",
    r"mend(?:s|ed|ing)?": "fix",
    r"work(?:s|ed|ing)?\s+(?:them\s+|it\s+)?off": "run",
    r"asked\s+for": "requested",
    r"likewise": "the rule itself, or `also`",
    r"beside(?=\s+(?:it|them|its|each|other|others|that|these|those|which|one)\b)": "in addition to, or next to",
    r"(?:stands?|lies?|written|kept)\s+beside": "is in, or next to",
    r"behind(?=\s+(?:the(?!\s+(?:proxy|load))|it|its|that|which|them|those|each|one|another|what)\b)": "after",
    r"the\s+least\s+used\s+(?:banks?\s+)?leave": "the least recently used are evicted",
    r"(?:none|null):(?=\s)": "None if ...",
}
VERBS = r"hears?|heard|hearing|asks?|asked|says?|said|tells?|told|knows|remembers?|remembered|forgets?|forgot(?:ten)?"
VERBS += r"|learns|learned"
BRITISH = {
    r"(?:col|fav|hon|lab|neighb|vap|behavi)our\w*": "-or",
    r"(?:cent|met|lit|fib|theat)res?": "-er",
    r"(?:normal|optim|organ|initial|quant|recogn|summar|serial|minim|maxim|synchron|standard|general|local|visual|util|real"
    r"|central|equal|categor|emphas|penal|token|random|vector|parallel|final|author|custom|stabil|regular|character)"
    r"is(?:e[sd]?|ing|ers?|ations?)": "-ize",
    r"(?:paral|ana|cata)lys(?:e[sd]?|ing)": "-lyze",
    r"(?:cancel|label|model|signal|travel|channel|level)l(?:ed|ing|ers?)": "one l",
    r"licences?|defences?|offences?": "-se",
    r"artefacts?|catalogues?|programmes?|judgements?|enrol|enrolment|fulfil|whilst|grey|amongst": "the American form",
}
NAME_PARTS = frozenset(
    {"hear", "hears", "heard", "hearing", "reheard", "listener", "told", "anew", "mended", "nursery", "bury", "deaths"}
    | {"thaw", "gatekeepers", "quarantined", "regraph", "standout", "standouts", "borrowed"}
)
FIRST_WORDS = (
    r"of|that|which|whose|who|whom|by|for|from|in|on|at|to|as|with|where|when|while|until|than|so|how|what|behind|beside"
    r"|likewise|also"
)
RULES = [(rf"(?<![\w-]){phrase}", f"write {plain!r}", "phrases") for phrase, plain in PHRASES.items()]
RULES += [(rf"\b(?:{VERBS})\b", "programs compute, read, return, compare, raise, evict", "people-verbs")]
RULES += [(rf"\b(?:{words})\b", f"American spelling: {plain}", "spelling") for words, plain in BRITISH.items()]
PATTERNS = [(re.compile(pattern, re.IGNORECASE), plain, rule) for pattern, plain, rule in RULES]
DANGLING = re.compile(rf"\s*(?:{FIRST_WORDS})\b", re.IGNORECASE)

CODE = re.compile(
    r"^[ \t]*(```|~~~).*?^[ \t]*\1|`[^`\n]*`|\]\([^)\s]*\)|https?://\S+|<!--.*?-->", re.DOTALL | re.MULTILINE
)
SECTION = re.compile(r"^( *)(Args|Attributes|Returns|Yields|Raises):\s*$")
ENTRY = re.compile(r"\*{0,2}[\w`]+(?:, \*{0,2}[\w`]+)*:\s+(.*)")
DESCRIBED = re.compile(r"(?:Field|Query|Path|Header|Option|Argument|Body|Form|Cookie|File)$")


class Finding(NamedTuple):
    """One place to correct.

    Attributes:
        line: line number, from 1.
        rule: name that the summary counts it under.
        message: matched text and what to write instead.
    """

    line: int
    rule: str
    message: str


class Text(NamedTuple):
    """A piece of prose and the line where it begins."""

    line: int
    text: str


def check_text(text: str, line: int = 1) -> Iterator[Finding]:
    """Find phrases, verbs and spellings in prose that begins at `line`."""
    for hidden in (CODE, ALLOWED):
        text = hidden.sub(lambda found: "`" + "\n" * found.group().count("\n") + "`", text)
    for pattern, plain, rule in PATTERNS:
        for found in pattern.finditer(text):
            words = " ".join(found.group().replace("#", " ").split())
            yield Finding(line + text.count("\n", 0, found.start()), rule, f"{words!r}: {plain}")


def check_python(source: str) -> tuple[list[Finding], int]:
    """Check docstrings, comments, messages, names and documented fields.

    Returns:
        The findings, and the number of documented fields.
    """
    tree = ast.parse(source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    docstrings = list(_docstrings(tree, source.splitlines()))
    prose = [*docstrings, *_blocks(comments), *_strings(tree)]
    found = [finding for text in prose for finding in check_text(text.text, text.line)]
    fields = [field for text in docstrings for field in _entries(text)]
    fields += _field_comments(tree, comments)
    fields += _descriptions(tree)
    for field in fields:
        if DANGLING.match(field.text):
            beginning = " ".join(field.text.split()[:4])
            found.append(Finding(field.line, "dangling", f"{beginning!r}: a field is a noun phrase with its unit"))
    for token in tokens:
        parts = set(re.findall(r"[A-Z]?[a-z]+", token.string)) if token.type == tokenize.NAME else set()
        if banned := {part.lower() for part in parts} & NAME_PARTS:
            found.append(Finding(token.start[0], "identifiers", f"{token.string!r}: {', '.join(sorted(banned))}"))
    return found, len(fields)


def _docstrings(tree: ast.AST, lines: list[str]) -> Iterator[Text]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                yield Text(first.lineno, "\n".join(lines[first.lineno - 1 : first.end_lineno]))


def _blocks(comments: dict[int, tokenize.TokenInfo]) -> Iterator[Text]:
    """Join comments in consecutive lines, so that phrases across lines are found."""
    block: list[str] = []
    for number in sorted(comments):
        block.append(comments[number].string.removeprefix("#"))
        if number + 1 not in comments:
            yield Text(number + 1 - len(block), "\n".join(block))
            block = []


def _strings(tree: ast.AST) -> Iterator[Text]:
    """Find messages and descriptions: strings of several words that are no docstring."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in inside and (text := _literal(node)).count(" ") > 1:
            yield Text(getattr(node, "lineno", 1), text.replace("\n", " "))


def _literal(node: ast.AST) -> str:
    """Return the text of a string or f-string, with `{}` for each value, or an empty text."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _entries(docstring: Text) -> Iterator[Text]:
    """Find the documented fields of a docstring: entries of `Args`, `Attributes`, `Returns` and `Yields`."""
    name, indent = "", 0
    for number, line in enumerate(docstring.text.splitlines(), docstring.line):
        depth = len(line) - len(line.lstrip())
        if section := SECTION.match(line):
            name, indent = section[2], len(section[1])
            first = True
        elif name and line.strip() and depth <= indent:
            name = ""
        elif name not in ("", "Raises") and depth == indent + 4:
            entry = ENTRY.match(line.strip())
            if entry or (first and name in ("Returns", "Yields")):
                yield Text(number, entry[1] if entry else line.strip())
            first = False


def _field_comments(tree: ast.AST, comments: dict[int, tokenize.TokenInfo]) -> Iterator[Text]:
    """Find comments at the end of a field's line."""
    for node in ast.walk(tree):
        for field in node.body if isinstance(node, ast.ClassDef) else ():
            comment = comments.get(field.end_lineno or 0) if isinstance(field, ast.AnnAssign) else None
            if comment is not None:
                yield Text(field.lineno, comment.string.lstrip("# "))


def _descriptions(tree: ast.AST) -> Iterator[Text]:
    """Find `description=` and `help=` of fields, parameters and options."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and DESCRIBED.search(ast.unparse(node.func)):
            for keyword in node.keywords:
                if keyword.arg in ("description", "help") and (text := _literal(keyword.value)):
                    yield Text(keyword.value.lineno, text)


def check_file(path: Path) -> tuple[list[Finding], int]:
    """Check one file by its kind. Returns the findings, and the number of documented fields."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return check_python(source)
    if path.name == "CHANGELOG.md" and (released := RELEASED.search(source)):
        source = source[: released.start()]
    if path.suffix != ".md":  # comments, and descriptions of a TOML file
        source = re.sub(r"^(?:.*?(?:#|description = )(.*)|.*)$", r"\1", source, flags=re.MULTILINE)
    return list(check_text(source)), 0


def files(path: Path) -> Iterator[Path]:
    """Find the files of a folder that are checked, or take the file itself."""
    if path.is_file():
        yield path
        return
    top = Path(_git(path, "rev-parse", "--show-toplevel")[0])
    for name in sorted(set(_git(path, "ls-files", "--cached", "--others", "--exclude-standard", "--full-name"))):
        file = top / name
        if file.is_file() and not name.startswith(EXEMPT) and (file.suffix in SUFFIXES or file.name == "Makefile"):
            yield file


def _git(folder: Path, *arguments: str) -> list[str]:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(paths: list[str]) -> int:
    """Check files and folders. Returns the exit status."""
    counts: Counter[str] = Counter()
    fields = 0
    for path in (file for name in paths or ["."] for file in files(Path(name))):
        findings, documented = check_file(path)
        fields += documented
        for line, rule, message in sorted(findings):
            counts[rule] += 1
            print(f"{_relative(path)}:{line}: {message} ({rule})")
    print(", ".join([*(f"{rule} {count}" for rule, count in sorted(counts.items())), f"documented fields {fields}"]))
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
