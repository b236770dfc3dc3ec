"""FastAPI with BackgroundTasks and SQLAlchemy, as its tutorials have it."""

import os
from uuid import uuid4

from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel
from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_engine(url, pool_size=8, max_overflow=24)
app = FastAPI()


class Base(DeclarativeBase):
    """The tables."""


class Job(Base):
    """A job."""

    __tablename__ = "background_job"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    text: Mapped[str]
    status: Mapped[str]


class Request(BaseModel):
    """What is posted."""

    text: str


def work(job_id: str) -> None:
    """Do nothing, and say so."""
    with Session(engine) as session:
        job = session.get(Job, job_id)
        if job:
            job.status = "completed"
        session.commit()


@app.post("/predict", status_code=202)
def predict(body: Request, background: BackgroundTasks) -> dict[str, str]:
    """Keep a row, answer, and work after that."""
    job_id = str(uuid4())
    with Session(engine) as session:
        session.add(Job(id=job_id, text=body.text, status="processing"))
        session.commit()
    background.add_task(work, job_id)
    return {"job_id": job_id, "status": "processing"}
