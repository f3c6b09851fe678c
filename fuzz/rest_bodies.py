"""For schemathesis: how a body of STOW-RS is sent. What it made up is the bytes of one part; the head it sends names no boundary, so that Hilum has to refuse it."""
import schemathesis

BOUNDARY = b"made-up"


@schemathesis.serializer("multipart/related")
def related(context, value):
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--" + BOUNDARY + b"--"
