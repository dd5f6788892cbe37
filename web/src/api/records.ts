/**
 * The records that results carry. The service's schema leaves them open (`record` is any JSON), because each kind of
 * result has its own; these are the parts that the pages show.
 */
export interface Estimate {
  value: number | null;
  low: number | null;
  high: number | null;
  n: number;
  method: string;
  note: string;
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
  score: number | null;
}

export interface OperatingPoint {
  name: string;
  label: string;
  threshold: number;
  rule: string;
  sensitivity: Estimate;
  specificity: Estimate;
}

export interface Evidence {
  method: string;
  target: string;
  layer: string;
  status: string;
  boxes: Box[];
  limits: string[];
}

export interface LabelReading {
  label: string;
  probability: number | null;
  decision: "positive" | "negative" | "withheld";
  operating_point: OperatingPoint | null;
  reason: string;
  evidence: Evidence | null;
}

export interface Measure {
  name: string;
  organ: string;
  value: number | null;
  unit: string;
  reason: string;
}

export interface ReadRecord {
  gate: { passed: boolean; reasons: string[]; distance: number | null; limit: number | null };
  labels: LabelReading[];
  prediction_set: {
    classes: string[];
    alpha: number;
    method: string;
    abstains: boolean;
    reason: string;
  } | null;
  measures: Measure[];
  agreement: { sentence: string } | null;
  model: { name: string; version: string; sha256: string; audit_verdict: string };
  image: { warnings: string[] };
  warnings: string[];
  applied: { name: string; detail: Record<string, unknown> }[];
}

export interface OrganRecord {
  organs: { organ: string; image_share: number; flags: string[] }[];
  measures: Measure[];
}

export interface SimilarRecord {
  neighbours: { rank: number; labels: string[] | null; distance: number; patient?: string | null }[];
  vote: Record<string, { positive: number; known: number; share: number }>;
}

export interface AuditLineRecord {
  code: string;
  question: string;
  answer: "PASS" | "WARN" | "FAIL" | "NOT ASSESSABLE";
  sentence: string;
  n: number | null;
}

export interface AuditRecord {
  verdict: string;
  headline: string;
  watermark: string;
  failed: string[];
  data: string;
  split: string;
  n: number;
  patients: number;
  lines: AuditLineRecord[];
  /** Method of heat maps -> whether its maps depend on what the reader has learnt. */
  heat_maps?: Record<string, string>;
}

export interface CardMetric {
  name: string;
  split: string;
  estimate: Estimate;
  operating_point: string | null;
}

export interface CardRecord {
  name: string;
  version: string;
  architecture: string;
  intended_use: string;
  licence: string;
  limits: string[];
  audit_verdict: string;
  data: { name: string; licence: string; population: string; images: number; patients: number } | null;
  metrics: CardMetric[];
  labels?: string[];
  operating_points?: OperatingPoint[];
  default_operating_point?: string;
  training?: Record<string, unknown>;
}
