"""A conformance kit: any backend can be held against the contract of pers.

In the test file of a backend::

    from pers.testing import conformance_suite
    from my_backend import MyDevice

    TestConformance = conformance_suite(MyDevice)

Needs the extra ``test`` (``pip install "pers[test]"``).
"""

from pers.testing.case import Case, NotApplicable, all_cases
from pers.testing.report import CaseResult, ConformanceReport, run_conformance
from pers.testing.suite import conformance_suite

__all__ = [
    "Case",
    "CaseResult",
    "ConformanceReport",
    "NotApplicable",
    "all_cases",
    "conformance_suite",
    "run_conformance",
]
