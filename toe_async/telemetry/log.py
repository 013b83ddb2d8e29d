"""Logs: one JSON object a line, or a console format for people.

Keys: ``ts level logger msg`` and what the call adds; ContextVars bound by ``structlog.contextvars`` (controller,
namespace, name, reconcileID, captureID) come by themselves. Control characters never reach the output raw: JSON escapes
them, and the console renderer gets them escaped, so that no value can forge a line. A traceback holds lines of code and
the error's own words, never the values of variables, where tokens are; on the console each of its lines is indented.
"""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LogFormat = Literal["json", "console"]
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LONGEST_VALUE = 2048


def get(name: str) -> FilteringBoundLogger:
    """Return the logger of a part of the program, such as ``kube.client``."""
    logger: FilteringBoundLogger = structlog.get_logger(logger_name=name)
    return logger


def configure(format_: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Set up logging of the whole process, third-party libraries included; called once, by the command line."""
    stream = stream or sys.stderr
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            event_key="msg",
            timestamp_key="ts",
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.EventRenamer("msg"),
        _named,
        _one_line if format_ == "console" else _bounded,
    ]
    last: list[Processor] = [structlog.processors.format_exc_info]
    if format_ == "console":
        last.append(_indented)
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    foreign = logging.StreamHandler(stream)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [foreign]
    # Libraries speak at info about every request; what they have to say to an operator starts at warning.
    root.setLevel(max(LEVELS[level], logging.WARNING))


def _named(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # structlog keeps the keyword `logger` for itself until the event is built.
    if "logger_name" in event:
        event["logger"] = event.pop("logger_name")
    return event


def _bounded(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST_VALUE:
            event[key] = value[:_LONGEST_VALUE] + "..."
    return event


def _one_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for key, value in _bounded(logger, method, event).items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = _escaped(value)
    return event


def _indented(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if isinstance(traceback := event.get("exception"), str):
        lines = (line if line.isprintable() else _escaped(line) for line in traceback.split("\n"))
        event["exception"] = "\n".join(f"    {line}" for line in lines)
    return event


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
