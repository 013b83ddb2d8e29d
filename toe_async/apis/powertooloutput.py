"""Where a PowerTool's output goes."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from toe_async.apis.fieldtypes import SUBDOMAIN_PATTERN, duration_meta
from toe_async.apis.meta import Wire
from toe_async.apis.profilingconfig import CollectorSink, S3Config
from toe_async.apis.schema import PROMISED, rule, rules

OutputMode = Literal["ephemeral", "pvc", "collector", "s3"]
Compression = Literal["none", "gzip", "zstd"]


class PvcOutput(Wire, frozen=True, kw_only=True):
    """A claim that the pod has mounted already, and the folder inside of it."""

    claim_name: Annotated[
        str,
        Meta(
            description="A PersistentVolumeClaim that is a volume of the pod already: none can be added to a pod.",
            min_length=1,
            max_length=253,
            pattern=SUBDOMAIN_PATTERN,
        ),
    ]
    path: Annotated[
        str,
        Meta(
            description="Folder inside the claim; a leading slash means the claim's root.",
            max_length=1024,
            extra_json_schema=rules(
                rule(
                    r"!self.matches(r'(^|/)[.][.](/|$)') && !self.matches(r'[\x00-\x1f\x7f]')",
                    "a path stays inside the claim: no segment .. and no control characters",
                    "FieldValueInvalid",
                )
            ),
        ),
    ] = ""


class CollectorOutput(CollectorSink, frozen=True, kw_only=True):
    """The collector."""


class S3Output(S3Config, frozen=True, kw_only=True):
    """A bucket that the administrator's sinks file lists."""


class Output(Wire, frozen=True, kw_only=True):
    """Where what the tool finds goes."""

    mode: Annotated[
        OutputMode,
        Meta(
            description=(
                "Where it goes: ephemeral keeps the files in the pod until they are fetched, at most 15 minutes; pvc "
                "writes to a claim that the pod has mounted; collector and s3 upload them."
            )
        ),
    ]
    pvc: Annotated[PvcOutput | None, Meta(description="The claim of mode pvc.")] = None
    collector: Annotated[
        CollectorOutput | None, Meta(description="The collector of mode collector; absent means the configured one.")
    ] = None
    s3: Annotated[S3Output | None, Meta(description="The bucket of mode s3.")] = None
    compress: Annotated[
        Compression, Meta(description="How each file is compressed before it is stored.", extra=PROMISED)
    ] = "gzip"
    rolling_interval: Annotated[
        str,
        duration_meta("Cuts the output of a long run into numbered files, each stored as it closes.", hours=168),
    ] = ""
    retention_days: Annotated[
        Annotated[int, Meta(ge=1, le=3650)] | None,
        Meta(
            description=(
                "Days after which the stored files are deleted; absent leaves it to the store. The collector deletes "
                "them, a bucket by a rule of its own for the tag toe-retention-days; in pods and claims nobody does."
            )
        ),
    ] = None


OUTPUT_RULES: Final = rules(
    rule("self.mode != 'pvc' || has(self.pvc)", "mode pvc needs pvc with a claimName", "FieldValueRequired", ".pvc"),
    rule("self.mode != 's3' || has(self.s3)", "mode s3 needs s3 with a bucket in it", "FieldValueRequired", ".s3"),
    *(
        rule(
            f"self.mode == '{mode}' || !has(self.{mode})",
            f"{mode} is for mode {mode} only: remove it, or set mode to {mode}",
            "FieldValueForbidden",
            f".{mode}",
        )
        for mode in ("pvc", "collector", "s3")
    ),
)
"""What mode and blocks must agree in."""
