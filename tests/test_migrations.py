from typing import Any
import psycopg
def test_smoke(jobs): 
    a=jobs.add(); jobs.add(status="completed"); jobs.add(status="failed"); jobs.add(status="processing")
    assert jobs.count()==4
