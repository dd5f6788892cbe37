"""Workitems that other systems ask for, and the DICOM reports that answer them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two tables, and find studies by their UID."""
    op.create_index("ix_studies_uid", "studies", ["study_uid"], unique=False)
    _workitems()
    op.create_table(
        "report_objects",
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("result_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["result_id"], ["results.id"], name=op.f("fk_report_objects_result_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name=op.f("fk_report_objects_sha256")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_report_objects")),
    )
    op.create_index(op.f("ix_report_objects_result_id"), "report_objects", ["result_id"], unique=False)


def _workitems() -> None:
    op.create_table(
        "workitems",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("tray", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("lock", sa.String(length=64), nullable=True),
        sa.Column("ours", sa.Boolean(), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("patient_name", sa.String(length=400), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("readiness", sa.String(length=16), nullable=False),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("reader", sa.String(length=256), nullable=False),
        sa.Column("operating_point", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=True),
        sa.Column("question", sa.String(length=64), nullable=True),
        sa.Column("dataset", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("begun", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_workitems_study_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_workitems_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitems")),
        sa.UniqueConstraint("uid", name=op.f("uq_workitems_uid")),
    )
    op.create_index("ix_workitems_waiting", "workitems", ["state", "study_uid"], unique=False)
    op.create_index("ix_workitems_order", "workitems", ["created", "id"], unique=False)
    op.create_index("ix_workitems_study", "workitems", ["study_id"], unique=False)
